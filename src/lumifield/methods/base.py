"""The contract of a method: rays in, colors out, named losses, and geometry."""

from __future__ import annotations

from collections.abc import Callable
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
from lumifield.volume.compositing import Rendered


@dataclass(frozen=True)
class RenderContext:
    """Inputs of a rendering besides the rays; a rendering is deterministic, without jitter or noise.

    `background` is the color behind the scene, per ray or for all. `appearance_embedding`, per ray or for all, is used
    by methods that learn embeddings; without it training uses the embedding of each image and rendering uses their
    mean. `channels` are the requested ones of the method's traits. `patch_size` is the height and width of the images
    or patches whose pixels the rays are, in row order (None: arbitrary rays). `fast_preview` is the camera of the
    single image to render approximately but fast, if the method can (None: exactly).
    """

    background: Float[Tensor, "*r 3"]
    appearance_embedding: Float[Tensor, "*rows e"] | None = field(default=None, kw_only=True)
    channels: tuple[str, ...] = field(default=(), kw_only=True)
    patch_size: tuple[int, int] | None = field(default=None, kw_only=True)
    fast_preview: Cameras | None = field(default=None, kw_only=True)

    @property
    def jitter_rng(self) -> Rng | None:
        """Generator for jitter and noise; None without them."""
        return None


@dataclass(frozen=True)
class TrainingContext(RenderContext):
    """Inputs of the forward pass of a training step besides the rays."""

    step: int
    rng: Rng

    @property
    def jitter_rng(self) -> Rng:
        """Generator for jitter and noise."""
        return self.rng


@dataclass(frozen=True)
class Traits:
    """Properties in which a method differs from others, for the rest of the package to adapt to.

    `channels` are its outputs besides color, depth and opacity. `patch_size` is the size of the square image patches
    that a training pass takes (0: arbitrary rays); such a method renders whole images at once, and may render a ray
    differently than within its image. The leading `num_appearance_dims` dimensions of an embedding affect color.
    With `has_signed_distance` the surface is the zero level set of `signed_distance`. With `supports_vmap` clones can
    run vmapped: shapes do not depend on parameters, and there are no buffers.
    """

    channels: tuple[str, ...] = ()
    patch_size: int = 0
    num_appearance_dims: int = 0
    has_signed_distance: bool = False
    supports_vmap: bool = False


class Method(nn.Module):
    """A radiance field method. Subclasses are final; the rest of the package relies on this contract only.

    `settings` are those it was built from, with every data-dependent choice resolved, so that they alone rebuild it.
    """

    settings: Any

    traits = Traits()

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


def render_in_chunks(
    method: Method,
    rays: Rays,
    context: RenderContext,
    chunk: int,
    before_chunk: Callable[[], None] = lambda: None,
) -> Rendered:
    """A forward pass without gradients in chunks of `chunk` rays, halved if memory runs out.

    Rays that form an image (`context.patch_size`) pass in one chunk. `before_chunk` may raise an error to stop.
    """
    parts: list[Rendered] = []
    chunk = chunk if context.patch_size is None else len(rays)
    start = 0
    while start < len(rays):
        piece = slice(start, start + chunk)
        before_chunk()
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
    """Context of the rays of one chunk."""
    background, embedding = context.background, context.appearance_embedding
    return replace(
        context,
        background=background[piece] if background.dim() == 2 else background,
        appearance_embedding=embedding[piece] if embedding is not None and embedding.dim() == 2 else embedding,
    )
