"""Source views that colors are sampled from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from lumifield.data.scene import Scene, unravel_pixels
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.image_sampling import cosine_similarity, is_in_image, sample_bicubic, sample_nearest
from lumifield.geometry.rays import Rays, camera_rays
from lumifield.runtime.image_io import to_uint8
from lumifield.runtime.rng import Rng

MIN_HIT_OPACITY = 128
REACH = 2
"""Maximum distance from the pixel of a position to a pixel used in its interpolation [pixels]."""


@dataclass(frozen=True)
class ProjectedSample:
    """Scene points projected into one source view: position, visibility, color, and cosine between the rays."""

    xy: Float[Tensor, "p 2"]
    seen: Bool[Tensor, " p"]
    rgb: Float[Tensor, "p 3"]
    cosine: Float[Tensor, " p"]


class SourceViews(nn.Module):
    """Images of any size with silhouettes, packed in one buffer, and their cameras.

    `pixels` are RGB with 255 inside the silhouette, else 0; `within` are colors extended slightly beyond it.
    """

    pixels: Tensor
    within: Tensor
    offsets: Tensor
    near: Tensor
    far: Tensor
    c2w: Tensor
    focal: Tensor
    center: Tensor
    size: Tensor
    distortion: Tensor

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        cameras = scene.cameras
        for name in ("c2w", "focal", "center", "size", "distortion"):
            self.register_buffer(name, getattr(cameras, name).clone())
        self.register_buffer("near", scene.near.clone())
        self.register_buffer("far", scene.far.clone())
        self.sizes = [scene.size(index) for index in range(len(scene))]
        self.register_buffer("offsets", _ends([width * height for width, height in self.sizes]))
        self.starts = self.offsets.tolist()
        self.register_buffer("pixels", _with_silhouettes(scene, self.starts[-1]))
        self.register_buffer("within", self.pixels[:, :3].clone(), persistent=False)
        self.extend()
        self.register_load_state_dict_post_hook(lambda module, _: module.extend())

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def cameras(self) -> Cameras:
        """Cameras of the views."""
        return Cameras(self.c2w, self.focal, self.center, self.size, self.distortion)

    def image(self, index: int) -> Float[Tensor, "4 h w"]:
        """One image, RGB and silhouette in [0, 1]."""
        return self.unpack_image(self.pixels, index)

    def unpack_image(self, packed: UInt8[Tensor, "n c"], index: int) -> Float[Tensor, "c h w"]:
        """One image of a packed buffer, in [0, 1]."""
        width, height = self.sizes[index]
        rows = packed[self.starts[index] : self.starts[index + 1]]
        return rows.view(height, width, -1).permute(2, 0, 1).float() / 255

    def extend(self) -> None:
        """Computes `within` from `pixels`."""
        for index in range(len(self)):
            rgb, (solid,) = self.image(index).split([3, 1])
            rows = to_uint8(extend_beyond_mask(rgb, solid >= 0.5, REACH)).flatten(1).T
            self.within[self.starts[index] : self.starts[index + 1]] = rows

    def sample_pixels(self, count: int, rng: Rng) -> tuple[Rays, Float[Tensor, "r 3"], Bool[Tensor, " r"]]:
        """Rays through random pixels of all images, their colors, and whether they are in the silhouettes."""
        index = rng.integers(count, self.starts[-1])
        camera, pixel = unravel_pixels(index, self.offsets, self.size[:, 0])
        rays = camera_rays(self.cameras, camera, pixel, self.near, self.far)
        found = self.pixels[index]
        return rays, found[:, :3].float() / 255, found[:, 3] >= MIN_HIT_OPACITY

    def is_in_silhouette(self, rays: Rays) -> Bool[Tensor, " r"]:
        """Whether rays of these images are in their silhouettes."""
        size = self.size[rays.image]
        column, row = torch.minimum((rays.place * size).long(), size - 1).unbind(-1)
        return self.pixels[self.offsets[rays.image] + row * size[:, 0] + column, 3] >= MIN_HIT_OPACITY

    def project_samples(
        self, index: int, points: Float[Tensor, "p 3"], directions: Float[Tensor, "p 3"]
    ) -> ProjectedSample:
        """Scene points in one image: those in front of its camera and in its silhouette, occluded or not.

        Colors come from inside the silhouette only; only colors and positions carry gradients.
        """
        size, camera = self.sizes[index], self.cameras[[index]]
        xy, depth = (found[0] for found in camera.project(points))
        with torch.no_grad():
            seen = is_in_image(xy, depth, size)
            seen &= sample_nearest(self.pixels[:, 3], self.starts[index], xy, size) >= MIN_HIT_OPACITY
        rgb = sample_bicubic(self.unpack_image(self.within, index), xy)
        return ProjectedSample(xy, seen, rgb, cosine_similarity(points, camera.positions[0], directions))


def _with_silhouettes(scene: Scene, count: int) -> Tensor:
    images = scene.images
    if images is None:
        return torch.zeros(count, 4, dtype=torch.uint8)
    solid = torch.ones(count, dtype=torch.bool, device=images.pixels.device)
    if images.pixels.shape[-1] == 4:
        solid = images.pixels[:, 3] >= MIN_HIT_OPACITY
    if images.mask is not None:
        solid = solid & images.mask
    return torch.cat([images.pixels[:, :3], 255 * solid[:, None].to(torch.uint8)], -1)


def _ends(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0)


def extend_beyond_mask(image: Float[Tensor, "c h w"], solid: Bool[Tensor, "h w"], by: int) -> Float[Tensor, "c h w"]:
    """Extends the masked pixels of an image by `by` pixels, each the mean of its known neighbors."""
    known = solid.to(image.dtype)[None]
    for _ in range(by):
        *values, share = F.avg_pool2d(torch.cat([image * known, known])[None], 3, 1, 1)[0]
        fresh = (share > 0) & (known == 0)
        image = torch.where(fresh, torch.stack(values) / share, image)
        known = known + fresh
    return image
