"""Appearance of an evaluated view: mean embedding, nearest training view, or fitted to its left half.

NeRF in the Wild, section 4: the embedding of a test image is fitted to its left half, and its right half is scored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
from lumifield.rendering.appearance import embedding_of, embedding_table
from lumifield.rendering.view import RenderedView, render_view
from lumifield.runs.state import Budget
from lumifield.runtime.rng import Rng
from lumifield.training.fit import TrainingState, fit

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

FIT_STEPS, FIT_RAYS = 100, 512
FIT = Optimizer(kind="adam", lr=0.02)
FIT_SCHEDULE = Schedule(kind="cosine", floor=0.05)
FITTED_APPEARANCES = ("fitted", "affine")
"""Appearances fitted to the left half of an image, which is therefore not scored."""


def default_appearance(method: Method) -> str:
    """Default appearance of evaluations: fitted for methods with appearance embeddings, else mean."""
    return "fitted" if method.traits.num_appearance_dims else "mean"


def describe_appearance(method: Method, appearance: str) -> str:
    """How the embedding of a test image is chosen, in words."""
    match appearance:
        case "fitted":
            return (
                f"to the left half of each image (columns below W // 2), initialized with the mean embedding, "
                f"{FIT_STEPS} steps of {FIT_RAYS} rays, all other parameters frozen"
            )
        case "affine":
            embedding = "none" if not method.traits.num_appearance_dims else "none, mean of the training images"
            return f"{embedding}; colors A c + b are fitted to the left half of each image by least squares"
        case "mean" if not method.traits.num_appearance_dims:
            return "none, the method has no embeddings"
        case "mean":
            return "none, mean of the training images"
        case "nearest":
            return "none, that of the nearest training view"
    return f"none, that of training image {appearance}"


def render_with_appearance(run: LoadedRun, scene: Scene, row: int, appearance: str) -> RenderedView:
    """Renders a view with an appearance: mean, nearest, fitted, affine, or that of a training image.

    Includes the channels of the method, unless it has embeddings. Raises `DataError` for an unknown image, or if the
    method has no embeddings.
    """
    if appearance == "affine":
        view = render_view(run.method, scene, row, device=run.device, chunk=run.chunk)
        return replace(view, rgb=fit_affine_colors(view.rgb, scene, row))
    embedding = None if appearance == "mean" else embedding_for(run, scene, row, appearance)
    channels = run.method.traits.channels if run.method.appearance_embeddings is None else ()
    return render_view(
        run.method, scene, row, device=run.device, chunk=run.chunk, appearance_embedding=embedding, channels=channels
    )


def embedding_for(run: LoadedRun, scene: Scene, row: int, appearance: str) -> Float[Tensor, " e"]:
    """Embedding of a view for an appearance."""
    if appearance == "fitted":
        return fit_appearance(run, scene, row)
    if appearance == "nearest":
        train = run.scenes["train"].cameras.positions
        return embedding_table(run)[int((train - scene.cameras.positions[row].to(train.device)).norm(dim=-1).argmin())]
    return embedding_of(run, appearance)


def fit_appearance(
    run: LoadedRun, scene: Scene, row: int, *, steps: int = FIT_STEPS, rays: int = FIT_RAYS
) -> Float[Tensor, " e"]:
    """Appearance embedding that best renders the left half of an image, fitted from the mean embedding.

    The method is left as it was: parameters, `requires_grad` flags, gradients and training mode. Raises `DataError` if
    it has no embeddings.
    """
    embedding_table(run)
    half = mask_right_half(scene.select([row])).to(run.device)
    with frozen_parameters(run.method):
        learner = EmbeddingFit(run.method, rays)
        rng = Rng(torch.Generator(run.device).manual_seed(0))
        state = TrainingState(learner, build_optimizer(FIT, learner.param_groups()), rng)
        fit(state, lambda count, rng: sample_batch(half, count, rng), Budget(steps), FIT_SCHEDULE)
    return learner.appearance_embedding.detach()


@contextmanager
def frozen_parameters(method: Method) -> Iterator[None]:
    """Inside, the parameters of a method need no gradient; afterwards flags and training mode are restored."""
    flags, was_training = [parameter.requires_grad for parameter in method.parameters()], method.training
    method.requires_grad_(False)
    try:
        yield
    finally:
        for parameter, flag in zip(method.parameters(), flags, strict=True):
            parameter.requires_grad_(flag)
        method.train(was_training)


def fit_affine_colors(rgb: Float[Tensor, "h w 3"], scene: Scene, row: int) -> Float[Tensor, "h w 3"]:
    """The rendering under the affine color transform A c + b fitted to the left half of the image (least squares)."""
    colors = torch.cat([rgb, torch.ones_like(rgb[..., :1])], -1).double()
    valid = mask_right_half(scene.select([row])).valid_mask(0).cpu()
    solution = torch.linalg.lstsq(colors[valid], scene.ground_truth(row).cpu()[valid].double(), driver="gelsd").solution
    return (colors @ solution).float().clamp(0, 1)


def mask_right_half(scene: Scene) -> Scene:
    """A one-image scene in which only valid pixels of the left half remain valid."""
    assert scene.images is not None
    valid = scene.valid_mask(0).clone()
    valid[:, scene.size(0)[0] // 2 :] = False
    return replace(scene, images=Images(scene.images.pixels, scene.images.offsets, valid.reshape(-1)))


class EmbeddingFit(Method):
    """A frozen method with a trainable appearance embedding, initialized with the mean of its embeddings."""

    def __init__(self, frozen: Method, rays: int) -> None:
        super().__init__()
        assert frozen.appearance_embeddings is not None
        self.frozen, self._rays = frozen, rays
        self.appearance_embedding = nn.Parameter(frozen.appearance_embeddings.detach().mean(0))

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Renders with the trainable embedding."""
        return self.frozen(rays, replace(context, appearance_embedding=self.appearance_embedding))

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Losses of the frozen method, without transients."""
        return self.frozen.losses(rendered, batch)

    def param_groups(self) -> list[dict[str, Any]]:
        """The embedding only."""
        return [{"params": [self.appearance_embedding]}]

    def rays_per_step(self) -> int:
        """Fixed number of rays."""
        return self._rays
