"""One view of a scene as a method sees it."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lumifield.core.images import colourise, mean_squared_error, psnr, to_uint8
from lumifield.core.rays import metric_depth, picture_rays
from lumifield.core.scene import Scene, backdrop
from lumifield.methods.base import Context, Method, chunked

SOLID = 0.5


@dataclass(frozen=True)
class View:
    """A rendered view, on the CPU, and the seconds that it took.

    `depth` is the distance from the camera along the ray [world units]; it means little where `opacity` is low.
    """

    rgb: Float[Tensor, "h w 3"]
    depth: Float[Tensor, "h w"]
    opacity: Float[Tensor, "h w"]
    seconds: float

    @property
    def solid(self) -> Bool[Tensor, "h w"]:
        """Where matter stops more than half of the light, so that there is a distance to speak of."""
        return self.opacity > SOLID

    @property
    def measured_depth(self) -> Float[Tensor, "h w"]:
        """Depth where the view is solid and 0, the depth cameras' "no measurement", elsewhere."""
        return torch.where(self.solid, self.depth, 0.0).nan_to_num(0.0, 0.0, 0.0)

    def depth_picture(self, low: float, high: float) -> UInt8[Tensor, "h w 3"]:
        """Depth in colours between `low` and `high` [world units], fading to black with the opacity."""
        return to_uint8(colourise(self.depth, low, high) * self.opacity[..., None])


def usual_chunk(device: torch.device) -> int:
    """Rays at once that keep the processor busy and the memory of a wide network small."""
    return 4096 if device.type == "cpu" else 32768


def render_view(method: Method, scene: Scene, index: int, *, device: torch.device, chunk: int | None = None) -> View:
    """One view of `scene` (pictures are not needed), without jitter or noise, over the scene's backdrop."""
    start = time.perf_counter()
    width, height = scene.size(index)
    context = Context(backdrop(scene.background).to(device))
    seen = chunked(method, scene.rays(index).to(device), context, chunk or usual_chunk(device))
    unwarped = picture_rays(scene.cameras, index, scene.near, scene.far)
    rgb, depth, opacity = seen.rgb.float().cpu(), seen.depth.float().cpu(), seen.opacity.float().cpu()
    distance = metric_depth(depth, unwarped.to("cpu"), scene.ndc) * scene.frame.scale
    return View(
        rgb=rgb.reshape(height, width, 3),
        depth=distance.reshape(height, width),
        opacity=opacity.reshape(height, width),
        seconds=time.perf_counter() - start,
    )


def view_psnr(view: View, scene: Scene, index: int) -> float | None:
    """PSNR of a view against the photograph [dB], both rounded to 8 bit; None where no pixel counts."""
    valid = scene.valid(index).cpu()
    if not bool(valid.any()):
        return None
    truth, prediction = to_uint8(scene.truth(index).cpu()), to_uint8(view.rgb)
    return psnr(mean_squared_error(prediction.float() / 255, truth.float() / 255, valid))
