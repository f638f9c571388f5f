"""Appearance of a scored image: the mean of the training images, the nearest, or fitted to its left half.

NeRF in the Wild, section 4: the embedding of a test image is learned from its left half, and its right half is scored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumifield.data.scene import Batch, Images, Scene, sample_batch
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Method, RenderContext, Rendered
from lumifield.optim import Optimizer, Schedule
from lumifield.optim.optimizers import build_optimizer
from lumifield.rendering.appearance import named, table
from lumifield.rendering.view import View, render_view
from lumifield.runtime.rng import Rng
from lumifield.training.fit import Budget, TrainingState, fit

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

FIT_STEPS, FIT_RAYS = 100, 512
FIT = Optimizer(kind="adam", lr=0.02)
FIT_SCHEDULE = Schedule(kind="cosine", floor=0.05)
LEARNED = ("fitted", "affine")
"""Appearances that are learned from left halves, which therefore do not count."""


def usual(method: Method) -> str:
    """How a split is scored where nobody says: fitted, where images have embeddings of their appearance."""
    return "fitted" if method.appearance else "mean"


def told(method: Method, wish: str) -> str:
    """What is done about the embedding of an image, in words."""
    match wish:
        case "fitted":
            return (
                f"to the left half of each image (columns below W // 2), from the mean of the images', "
                f"{FIT_STEPS} steps of {FIT_RAYS} rays with all else held"
            )
        case "affine":
            embedding = "none" if not method.appearance else "none, the mean of the images'"
            return f"{embedding}; colors A c + b are fitted to the left half of each image by least squares"
        case "mean" if not method.appearance:
            return "none, the method has no embedding of an image"
        case "mean":
            return "none, the mean of the images'"
        case "nearest":
            return "none, that of the image whose camera is nearest"
    return f"none, that of image {wish}"


def worn(run: LoadedRun, scene: Scene, row: int, wish: str) -> View:
    """One view of a scene in an appearance: mean, nearest, fitted, affine, or that of an image of the training.

    It has the method's own channels, unless images have embeddings. Raises `DataError` for an image that is
    none of the training, and where the method has no embeddings.
    """
    if wish == "affine":
        view = render_view(run.method, scene, row, device=run.device, chunk=run.chunk)
        return replace(view, rgb=affine(view.rgb, scene, row))
    embedding = None if wish == "mean" else worn_embedding(run, scene, row, wish)
    channels = run.method.channels if run.method.appearance_embeddings is None else ()
    return render_view(
        run.method, scene, row, device=run.device, chunk=run.chunk, appearance_embedding=embedding, channels=channels
    )


def worn_embedding(run: LoadedRun, scene: Scene, row: int, wish: str) -> Float[Tensor, " e"]:
    """The embedding that one view wears."""
    if wish == "fitted":
        return fitted(run, scene, row)
    if wish == "nearest":
        train = run.scenes["train"].cameras.positions
        return table(run)[int((train - scene.cameras.positions[row].to(train.device)).norm(dim=-1).argmin())]
    return named(run, wish)


def fitted(run: LoadedRun, scene: Scene, row: int) -> Float[Tensor, " e"]:
    """The embedding that shows the left half of an image best, from the mean on; all else is held."""
    table(run)
    learner = Wearer(run.method)
    half = left_half(scene.select([row])).to(run.device)
    state = TrainingState(
        learner,
        build_optimizer(FIT, learner.param_groups()),
        Rng(torch.Generator(run.device).manual_seed(0)),
    )
    fit(state, lambda rays, rng: sample_batch(half, rays, rng), Budget(FIT_STEPS), FIT_SCHEDULE)
    run.method.eval()
    return learner.appearance_embedding.detach()


def affine(rgb: Float[Tensor, "h w 3"], scene: Scene, row: int) -> Float[Tensor, "h w 3"]:
    """An image in the colors A c + b that come nearest to the left half of its image (least squares)."""
    colors = torch.cat([rgb, torch.ones_like(rgb[..., :1])], -1).double()
    counts = left_half(scene.select([row])).valid_mask(0).cpu()
    solution = torch.linalg.lstsq(
        colors[counts], scene.ground_truth(row).cpu()[counts].double(), driver="gelsd"
    ).solution
    return (colors @ solution).float().clamp(0, 1)


def left_half(scene: Scene) -> Scene:
    """An image of which the pixels left of its middle count alone, if they counted before."""
    assert scene.images is not None
    valid = scene.valid_mask(0).clone()
    valid[:, scene.size(0)[0] // 2 :] = False
    return replace(scene, images=Images(scene.images.pixels, scene.images.offsets, valid.reshape(-1)))


class Wearer(Method):
    """A method whose parameters are held: what is learned is the embedding of one image, from their mean on."""

    def __init__(self, held: Method) -> None:
        super().__init__()
        assert held.appearance_embeddings is not None
        self.held = held.requires_grad_(False)
        self.appearance_embedding = nn.Parameter(held.appearance_embeddings.detach().mean(0))

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """The held method, wearing the embedding."""
        return self.held(rays, replace(context, appearance_embedding=self.appearance_embedding))

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Those of the held method, which knows nothing of what passed by."""
        return self.held.losses(rendered, batch)

    def param_groups(self) -> list[dict[str, Any]]:
        """The embedding alone."""
        return [{"params": [self.appearance_embedding]}]

    def rays_per_step(self) -> int:
        """Enough to tell a color."""
        return FIT_RAYS
