"""The contract of a method: rays in, colors out, named losses, and geometry."""

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
class RenderContext:
    """Inputs of a forward pass besides the rays.

    `rng` is None for deterministic passes (validation, rendering): no jitter, no noise. `background` is the color
    behind the scene, per ray or for all. `appearance_embedding`, per ray or for all, is used by methods that learn
    embeddings; without it training uses the embedding of each image and rendering uses their mean. `channels` are the
    requested ones of the method's `channels`. `patch_size` is the height and width of the images or patches whose
    pixels the rays are, in row order (None: arbitrary rays). `fast_preview` is the camera of the single image to render
    approximately but fast, if the method can (None: exactly).
    """

    background: Float[Tensor, "*r 3"]
    step: int = 0
    rng: Rng | None = None
    appearance_embedding: Float[Tensor, "*rows e"] | None = None
    channels: tuple[str, ...] = ()
    patch_size: tuple[int, int] | None = None
    fast_preview: Cameras | None = None


@dataclass(frozen=True)
class Rendered:
    """Output of a method per ray.

    `depth` is t of the surface: the expected t of the weights divided by `opacity`, or for packed samples of `instant`
    their median; t of `far` if nothing is hit. `coarse` holds the colors of coarser passes; `samples` counts field
    evaluations; `penalties` are weighted loss terms that only the pass itself can compute. `channels` are further
    outputs, colors or scalars.
    """

    rgb: Float[Tensor, "r 3"]
    depth: Float[Tensor, " r"]
    opacity: Float[Tensor, " r"]
    coarse: tuple[Float[Tensor, "r 3"], ...] = ()
    samples: int = 0
    penalties: dict[str, Tensor] = field(default_factory=dict)
    channels: dict[str, Float[Tensor, " r *c"]] = field(default_factory=dict)


class Method(nn.Module):
    """A radiance field method. Subclasses are final; the rest of the package relies on this contract only.

    `settings` are those it was built from, with every data-dependent choice resolved, so that they alone rebuild it.
    """

    settings: Any

    has_signed_distance: bool = False
    """Whether the surface is the zero level set of `signed_distance`."""

    channels: tuple[str, ...] = ()
    """Outputs besides color, depth and opacity."""

    supports_vmap: bool = False
    """Whether several copies can run vmapped: shapes do not depend on parameters, and there are no buffers."""

    patch_size: int = 0
    """Size of the square image patches that a training pass takes; 0: arbitrary rays. A method that takes patches
    renders whole images at once, and may render a single ray differently than within its image."""

    num_appearance_dims: int = 0
    """Leading dimensions of an embedding that affect color."""

    @property
    def appearance_embeddings(self) -> Float[Tensor, "n e"] | None:
        """Embedding of each training image, one per row; None if the method learns none."""
        return None

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Renders rays."""
        raise TypeError(f"{type(self).__name__} defines no forward")

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Named, weighted loss terms; their sum is the objective."""
        raise TypeError(f"{type(self).__name__} defines no losses")

    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density at scene points [1 / scene unit]: that of a rendering, so zero where no ray is sampled."""
        raise TypeError(f"{type(self).__name__} defines no density")

    def signed_distance(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Distance of scene points to the surface [scene units], negative inside."""
        raise TypeError(f"{type(self).__name__} defines no signed_distance")

    def normals(self, points: Float[Tensor, "p 3"], step: Float[Tensor, " p"], ndc: Ndc | None) -> Float[Tensor, "p 3"]:
        """Outward unit normals at scene points before any warp (`ndc`), from differences over `step` [scene units]."""
        return density_normals(
            lambda about: self.density(about if ndc is None else points_to_ndc(about, ndc)), points, step
        )

    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """RGB in [0, 1] at points as `density` takes them, seen along `viewdirs`, without gradient."""
        raise TypeError(f"{type(self).__name__} defines no colors")

    def param_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimizer; a group may scale the learning rate by `lr_factor`."""
        return [{"params": list(self.parameters())}]

    def rays_per_step(self) -> int:
        """Number of rays of the next training step, over all processes."""
        raise TypeError(f"{type(self).__name__} defines no rays_per_step")

    def is_mask_only_step(self, step: int) -> bool:
        """Whether a training step uses silhouettes only and renders no colors; by default never."""
        return False

    def before_step(self, step: int, rng: Rng) -> None:
        """Called before each training step, for example to update occupancy grids; does nothing by default."""

    def after_step(self, step: int, rays: int, samples: int) -> None:
        """Called after each training step with its rays and samples over all processes; does nothing by default."""

    def adaptable_parameters(self) -> list[str]:
        """Names of the parameters that an initialization sets; by default all."""
        return [name for name, _ in self.named_parameters()]

    def load_published(self, path: Path) -> None:
        """Loads a published checkpoint; raises `DataError` if it does not fit.

        By default no checkpoint fits.
        """
        fix = "use a run, or choose method nerf without an occupancy grid"
        raise DataError(path, "initialization", "a file", "the folder of a run of this method", fix)


def render_in_chunks(method: Method, rays: Rays, context: RenderContext, chunk: int) -> Rendered:
    """A forward pass without gradients in chunks of `chunk` rays, halved if memory runs out.

    Rays that form an image (`context.patch_size`) pass in one chunk.
    """
    parts: list[Rendered] = []
    chunk = chunk if context.patch_size is None else len(rays)
    start = 0
    while start < len(rays):
        piece = slice(start, start + chunk)
        try:
            with torch.no_grad():
                parts.append(method(rays[piece], chunk_context(context, piece)))
        except torch.OutOfMemoryError:
            if chunk == 1 or context.patch_size is not None:
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


def chunk_context(context: RenderContext, piece: slice) -> RenderContext:
    """Deterministic context of the rays of one chunk."""
    background, embedding = context.background, context.appearance_embedding
    return replace(
        context,
        rng=None,
        background=background[piece] if background.dim() == 2 else background,
        appearance_embedding=embedding[piece] if embedding is not None and embedding.dim() == 2 else embedding,
    )
