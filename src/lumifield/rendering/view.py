"""Rendering of one view of a scene."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lumifield.data.scene import Scene, background_color
from lumifield.geometry.normals import normals_from_points
from lumifield.geometry.rays import Ndc, distance_from_t, image_rays
from lumifield.methods.base import Method, RenderContext, render_in_chunks
from lumifield.runtime.colormaps import apply_colormap, sinebow
from lumifield.runtime.image_io import to_uint8
from lumifield.runtime.image_metrics import mean_squared_error, psnr

NormalSource = Literal["density", "depth"]

MIN_HIT_OPACITY = 0.5
BAND = 1.1
MIN_VISIBLE_OPACITY = 0.5 / 255
NORMAL_LIFT, STEP_OF_DENSITY, STEP_OF_DEPTH = 1.0, 2.5, 2.0
"""Offset in front of the depth, step of density differences, and distance of depth differences [pixels].

Chosen as most accurate on the ground truth of the still life.
"""


@dataclass(frozen=True)
class Normals:
    """Source of normals, and the angle of a training pixel [radians], below which the scene is not resolved."""

    source: NormalSource
    pixel: float

    @staticmethod
    def for_training_scene(scene: Scene, source: NormalSource = "density") -> Normals:
        """Normals of a method trained on a scene."""
        return Normals(source, 1 / float(scene.cameras.focal.mean(-1).median()))


@dataclass(frozen=True)
class RenderedView:
    """A rendered view on the CPU, with its rendering time.

    `depth` is the distance along the ray [world units], `normal` the unit surface normal (world axes; None if not
    requested); both are unreliable where `opacity` is low. `channels` holds the requested outputs of the method.
    """

    rgb: Float[Tensor, "h w 3"]
    depth: Float[Tensor, "h w"]
    opacity: Float[Tensor, "h w"]
    seconds: float
    normal: Float[Tensor, "h w 3"] | None = None
    channels: dict[str, Float[Tensor, "h w c"]] = field(default_factory=dict)

    @property
    def hit_mask(self) -> Bool[Tensor, "h w"]:
        """Pixels with more than half opacity, where depth is defined."""
        return self.opacity > MIN_HIT_OPACITY

    @property
    def measured_depth(self) -> Float[Tensor, "h w"]:
        """Depth where the view hits a surface, and 0 elsewhere, the "no measurement" of depth cameras."""
        return torch.where(self.hit_mask, self.depth, 0.0).nan_to_num(0.0, 0.0, 0.0)

    def depth_image(self, low: float, high: float) -> UInt8[Tensor, "h w 3"]:
        """Depth colored between `low` and `high` [world units], fading to black with opacity."""
        return to_uint8(apply_colormap(self.depth, low, high) * self.opacity[..., None])

    def bands_image(self) -> UInt8[Tensor, "h w 3"]:
        """Cyclic colors that repeat for each 10% increase of depth, fading to black with opacity."""
        return to_uint8(sinebow(self.depth.clamp_min(0).log() / math.log(BAND)) * self.opacity[..., None])

    def normal_image(self) -> UInt8[Tensor, "h w 3"]:
        """Normals n as colors 0.5 + 0.5 n, fading to black with opacity."""
        assert self.normal is not None
        return to_uint8((0.5 + 0.5 * self.normal) * self.opacity[..., None])


def default_chunk(device: torch.device) -> int:
    """Rays per chunk that keep the processor busy within the memory of a wide network."""
    return 4096 if device.type == "cpu" else 32768


def render_view(
    method: Method,
    scene: Scene,
    index: int,
    *,
    device: torch.device,
    chunk: int | None = None,
    normals: Normals | None = None,
    appearance_embedding: Float[Tensor, " e"] | None = None,
    channels: tuple[str, ...] = (),
    fast_preview: bool = False,
    before_chunk: Callable[[], None] = lambda: None,
) -> RenderedView:
    """Renders one view of `scene` (images are not needed) without jitter or noise, over the background of the scene.

    Uses the given appearance embedding (default: mean of the images) and renders the named channels. `fast_preview`
    views are approximate but fast, if the method supports it. `before_chunk` is called before each chunk of rays or
    points and may raise an error to stop.
    """
    start = time.perf_counter()
    width, height = scene.size(index)
    embedding = None if appearance_embedding is None else appearance_embedding.to(device)
    patch = (height, width) if method.traits.patch_size else None
    camera = scene.cameras[[index]].to(device) if fast_preview and method.traits.patch_size else None
    background = background_color(scene.background).to(device)
    context = RenderContext(
        background, appearance_embedding=embedding, channels=channels, patch_size=patch, fast_preview=camera
    )
    chunk = chunk or default_chunk(device)
    seen = render_in_chunks(method, scene.rays(index).to(device), context, chunk, before_chunk)
    rays = image_rays(scene.cameras, index, scene.near, scene.far).to("cpu")
    rgb, depth, opacity = seen.rgb.float().cpu(), seen.depth.float().cpu(), seen.opacity.float().cpu()
    distance = distance_from_t(depth, rays, scene.ndc)
    view = RenderedView(
        rgb=rgb.reshape(height, width, 3),
        depth=distance.reshape(height, width) * scene.frame.scale,
        opacity=opacity.reshape(height, width),
        seconds=time.perf_counter() - start,
        channels={name: values.float().cpu().view(height, width, -1) for name, values in seen.channels.items()},
    )
    if normals is None:
        return view
    return add_normals(view, method, scene.select([index]), normals, device, chunk, before_chunk)


def add_normals(
    view: RenderedView,
    method: Method,
    scene: Scene,
    normals: Normals,
    device: torch.device,
    chunk: int,
    before_chunk: Callable[[], None],
) -> RenderedView:
    """The view with normals at its surface points; the scene has only its camera."""
    rays = image_rays(scene.cameras, 0, scene.near, scene.far).to("cpu")
    distance = view.depth.reshape(-1) / scene.frame.scale
    if normals.source == "depth":
        points = (rays.origins + distance[:, None] * rays.directions).view(view.rgb.shape)
        pixels = max(normals.pixel / float(rays.radius.median()), 1.0)
        found = normals_from_points(points, rays.origins[0], round(STEP_OF_DEPTH * pixels))
    else:
        pixel = distance * rays.radius.clamp_min(normals.pixel)
        points = rays.origins + (distance - NORMAL_LIFT * pixel)[:, None] * rays.directions
        seen = view.opacity.reshape(-1) > MIN_VISIBLE_OPACITY
        found = view_normals_from_density(
            method,
            points,
            STEP_OF_DENSITY * pixel,
            seen,
            scene.ndc,
            device=device,
            chunk=chunk,
            before_chunk=before_chunk,
        )
    return replace(view, normal=(found.view(-1, 3) @ scene.frame.rotation.T.to("cpu")).view(view.rgb.shape))


@torch.no_grad()
def view_normals_from_density(
    method: Method,
    points: Float[Tensor, "p 3"],
    step: Float[Tensor, " p"],
    seen: Bool[Tensor, " p"],
    ndc: Ndc | None,
    *,
    device: torch.device,
    chunk: int,
    before_chunk: Callable[[], None],
) -> Float[Tensor, "p 3"]:
    """Normals from the density at visible points, in chunks; zero elsewhere."""
    normal = torch.zeros_like(points)
    for rows in seen.nonzero()[:, 0].split(chunk):
        before_chunk()
        normal[rows] = method.normals(points[rows].to(device), step[rows].to(device), ndc).float().cpu()
    return normal


def view_psnr(view: RenderedView, scene: Scene, index: int) -> float | None:
    """PSNR of a view against ground truth [dB], both rounded to 8 bits; None if no pixel is valid."""
    valid = scene.valid_mask(index).cpu()
    if not bool(valid.any()):
        return None
    ground_truth, prediction = to_uint8(scene.ground_truth(index).cpu()), to_uint8(view.rgb)
    return psnr(mean_squared_error(prediction.float() / 255, ground_truth.float() / 255, valid))
