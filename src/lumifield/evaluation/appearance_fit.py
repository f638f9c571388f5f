"""Appearance of a scored image: the mean of the training images, the nearest, or fitted to its left half.

NeRF in the Wild, section 4: the embedding of a test image is learned from its left half, and its right half is scored.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumifield.data.scene import Batch, Pictures, Scene, draw
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Context, Method, Rendered
from lumifield.optim import Optimiser, Schedule
from lumifield.optim.optimizers import build_optimiser
from lumifield.rendering.appearance import named, table
from lumifield.rendering.view import View, render_view
from lumifield.runtime.rng import Draws
from lumifield.training.fit import Budget, State, fit

if TYPE_CHECKING:
    from lumifield.runs.run_folder import Run

FIT_STEPS, FIT_RAYS = 100, 512
FIT = Optimiser(kind="adam", lr=0.02)
FIT_SCHEDULE = Schedule(kind="cosine", floor=0.05)
LEARNED = ("fitted", "affine")
"""Appearances that are learned from left halves, which therefore do not count."""


def usual(method: Method) -> str:
    """How a split is scored where nobody says: fitted, where photographs have embeddings of their appearance."""
    return "fitted" if method.appearance else "mean"


def told(method: Method, wish: str) -> str:
    """What is done about the embedding of a picture, in words."""
    match wish:
        case "fitted":
            return (
                f"to the left half of each picture (columns below W // 2), from the mean of the photographs', "
                f"{FIT_STEPS} steps of {FIT_RAYS} rays with all else held"
            )
        case "affine":
            embedding = "none" if not method.appearance else "none, the mean of the photographs'"
            return f"{embedding}; colours A c + b are fitted to the left half of each picture by least squares"
        case "mean" if not method.appearance:
            return "none, the method has no embedding of a picture"
        case "mean":
            return "none, the mean of the photographs'"
        case "nearest":
            return "none, that of the photograph whose camera is nearest"
    return f"none, that of photograph {wish}"


def worn(run: Run, scene: Scene, row: int, wish: str) -> View:
    """One view of a scene in an appearance: mean, nearest, fitted, affine, or that of a photograph of the training.

    It has the method's own channels, unless photographs have embeddings. Raises `DataError` for a photograph that is
    none of the training, and where the method has no embeddings.
    """
    if wish == "affine":
        view = render_view(run.method, scene, row, device=run.device, chunk=run.chunk)
        return replace(view, rgb=affine(view.rgb, scene, row))
    embedding = None if wish == "mean" else worn_embedding(run, scene, row, wish)
    channels = run.method.channels if run.method.embeddings is None else ()
    return render_view(
        run.method, scene, row, device=run.device, chunk=run.chunk, embedding=embedding, channels=channels
    )


def worn_embedding(run: Run, scene: Scene, row: int, wish: str) -> Float[Tensor, " e"]:
    """The embedding that one view wears."""
    if wish == "fitted":
        return fitted(run, scene, row)
    if wish == "nearest":
        train = run.scenes["train"].cameras.positions
        return table(run)[int((train - scene.cameras.positions[row].to(train.device)).norm(dim=-1).argmin())]
    return named(run, wish)


def fitted(run: Run, scene: Scene, row: int) -> Float[Tensor, " e"]:
    """The embedding that shows the left half of a photograph best, from the mean on; all else is held."""
    table(run)
    learner = Wearer(run.method)
    half = left_half(scene.only([row])).to(run.device)
    state = State(
        learner,
        build_optimiser(FIT, learner.param_groups()),
        Draws(torch.Generator(run.device).manual_seed(0)),
    )
    fit(state, lambda rays, draws: draw(half, rays, draws), Budget(FIT_STEPS), FIT_SCHEDULE)
    run.method.eval()
    return learner.embedding.detach()


def affine(rgb: Float[Tensor, "h w 3"], scene: Scene, row: int) -> Float[Tensor, "h w 3"]:
    """A picture in the colours A c + b that come nearest to the left half of its photograph (least squares)."""
    colours = torch.cat([rgb, torch.ones_like(rgb[..., :1])], -1).double()
    counts = left_half(scene.only([row])).valid(0).cpu()
    solution = torch.linalg.lstsq(colours[counts], scene.truth(row).cpu()[counts].double(), driver="gelsd").solution
    return (colours @ solution).float().clamp(0, 1)


def left_half(scene: Scene) -> Scene:
    """A photograph of which the pixels left of its middle count alone, if they counted before."""
    assert scene.pictures is not None
    valid = scene.valid(0).clone()
    valid[:, scene.size(0)[0] // 2 :] = False
    return replace(scene, pictures=Pictures(scene.pictures.pixels, scene.pictures.offsets, valid.reshape(-1)))


class Wearer(Method):
    """A method whose parameters are held: what is learned is the embedding of one picture, from their mean on."""

    def __init__(self, held: Method) -> None:
        super().__init__()
        assert held.embeddings is not None
        self.held = held.requires_grad_(False)
        self.embedding = nn.Parameter(held.embeddings.detach().mean(0))

    def forward(self, rays: Rays, context: Context) -> Rendered:
        """The held method, wearing the embedding."""
        return self.held(rays, replace(context, embedding=self.embedding))

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Those of the held method, which knows nothing of what passed by."""
        return self.held.losses(rendered, batch)

    def param_groups(self) -> list[dict[str, Any]]:
        """The embedding alone."""
        return [{"params": [self.embedding]}]

    def rays_per_step(self) -> int:
        """Enough to tell a colour."""
        return FIT_RAYS
