"""The contract of a method: rays in, colors out, named losses, and a place for matter."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from lumifield.data.scene import Batch
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.normals import density_normals
from lumifield.geometry.rays import Ndc, Rays, points_to_ndc
from lumifield.runtime.rng import Rng


@dataclass(frozen=True)
class Context:
    """What a forward pass may know beside its rays.

    `rng` is None when the pass is deterministic (validation, rendering): no jitter, no noise. `background` is
    what stands behind the scene for each ray, or one color for all. `embedding` is how the image looks, for methods
    that have embeddings, one for each ray or one for all; without one it is each image's own while training, else
    their mean. `channels` are those of the method's `channels` that are asked for. `patch` is the height
    and width of the images, or pieces of images, whose pixels the rays are, row by row (None: any rays). `quick` is
    the camera of the one image that they are, where it may be shown from what the method keeps of itself, soon rather
    than exactly (None: exactly).
    """

    background: Float[Tensor, "*r 3"]
    step: int = 0
    rng: Rng | None = None
    embedding: Float[Tensor, "*rows e"] | None = None
    channels: tuple[str, ...] = ()
    patch: tuple[int, int] | None = None
    quick: Cameras | None = None


@dataclass(frozen=True)
class Rendered:
    """What a method sees along each ray.

    `depth` is the expected t of the matter met, divided by `opacity` (t of `far` where nothing is met). `coarse` are
    the colors of coarser passes, where the method has some; `samples` is the number of field evaluations; `penalties`
    are terms of the objective that only the pass itself can tell, already weighted. `channels` are what else a ray
    shows, colors or numbers.
    """

    rgb: Float[Tensor, "r 3"]
    depth: Float[Tensor, " r"]
    opacity: Float[Tensor, " r"]
    coarse: tuple[Float[Tensor, "r 3"], ...] = ()
    samples: int = 0
    penalties: dict[str, Tensor] = field(default_factory=dict)
    channels: dict[str, Float[Tensor, " r *c"]] = field(default_factory=dict)


class Method(nn.Module):
    """A way to learn a scene. Subclasses are final; every other part of the package speaks to this contract only.

    `settings` are those it was built from, with every choice that depended on the data made: they rebuild it alone.
    """

    settings: Any

    surface_level: float | None = None
    """The value of `inside` at a surface, where it is a signed distance; a density has no such value of its own."""

    channels: tuple[str, ...] = ()
    """What the method can show beside color, depth and opacity of an image whose embedding is given."""

    stackable: bool = False
    """Whether several copies may run as one: its passes have one shape whatever the parameters, and no buffers."""

    patch: int = 0
    """Side of the square pieces of images that a training pass takes; 0: it takes any rays. A method that takes
    pieces shows whole images at once, and may show a ray on its own otherwise than in its image."""

    appearance: int = 0
    """How many leading numbers of an embedding the colors of the scene depend on."""

    @property
    def embeddings(self) -> Float[Tensor, "n e"] | None:
        """How each image of the training looks, a row each; None where the method learns nothing of the kind."""
        return None

    def forward(self, rays: Rays, context: Context) -> Rendered:
        """What is seen along the rays."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Named loss terms, already weighted: their sum is the objective."""
        raise TypeError(f"{type(self).__name__} defines no losses")

    def inside(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density at scene points [1 / scene unit]: positive inside matter."""
        raise TypeError(f"{type(self).__name__} defines no inside")

    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density at scene points [1 / scene unit], never negative: `inside`, unless that is a signed distance."""
        return self.inside(points)

    def normals(self, points: Float[Tensor, "p 3"], step: Float[Tensor, " p"], ndc: Ndc | None) -> Float[Tensor, "p 3"]:
        """Outward unit normals at points of the scene before any warp (`ndc`), over `step` [scene units] about them."""
        return density_normals(lambda about: self.inside(about if ndc is None else points_to_ndc(about, ndc)), points, step)

    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """rgb in [0, 1] of matter at points as `inside` takes them, seen along `viewdirs`, without a gradient."""
        raise TypeError(f"{type(self).__name__} defines no colors")

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimizer; a group may scale the learning rate by `lr_factor`."""
        return [{"params": list(self.parameters())}]

    def rays_per_step(self) -> int:
        """How many rays the next training step should see, over all processes."""
        raise TypeError(f"{type(self).__name__} defines no rays_per_step")

    def carves(self, step: int) -> bool:
        """Whether a training step learns from silhouettes alone and shows no colors; by default none does."""
        return False

    def before_step(self, step: int, rng: Rng) -> None:
        """Called before each training step (occupancy grids refresh here); the default does nothing."""

    def after_step(self, step: int, rays: int, samples: int) -> None:
        """Called after each training step with what it saw over all processes; the default does nothing."""

    def adaptable(self) -> list[str]:
        """Names of the parameters that a learned start carries over: by default all."""
        return [name for name, _ in self.named_parameters()]

    def load_published(self, path: Path) -> None:
        """Takes over the parameters of a published checkpoint; raises `DataError` where it does not fit.

        By default no checkpoint does.
        """
        fix = "start from a run, or choose method nerf without an occupancy grid"
        raise DataError(path, "the start", "a file", "the folder of a run of this method", fix)


def chunked(method: Method, rays: Rays, context: Context, chunk: int) -> Rendered:
    """A forward pass without gradients in pieces of `chunk` rays; halves the piece when memory runs out.

    Rays that are the pixels of an image (`context.patch`) pass in one piece.
    """
    parts: list[Rendered] = []
    chunk = chunk if context.patch is None else len(rays)
    start = 0
    while start < len(rays):
        piece = slice(start, start + chunk)
        try:
            with torch.no_grad():
                parts.append(method(rays[piece], piece_of(context, piece)))
        except torch.OutOfMemoryError:
            if chunk == 1 or context.patch is not None:
                raise
            chunk = chunk // 2
            continue
        start += chunk
    return Rendered(
        rgb=torch.cat([p.rgb for p in parts]),
        depth=torch.cat([p.depth for p in parts]),
        opacity=torch.cat([p.opacity for p in parts]),
        samples=sum(p.samples for p in parts),
        channels={name: torch.cat([p.channels[name] for p in parts]) for name in parts[0].channels},
    )


def piece_of(context: Context, piece: slice) -> Context:
    """What a pass without rng over some of the rays may know."""
    background, embedding = context.background, context.embedding
    return replace(
        context,
        rng=None,
        background=background[piece] if background.dim() == 2 else background,
        embedding=embedding[piece] if embedding is not None and embedding.dim() == 2 else embedding,
    )
