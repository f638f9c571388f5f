"""The scene: cameras, images and bounds of one split, from which batches of rays are sampled."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rays import Ndc, Rays, camera_rays, image_rays
from lumifield.runtime.rng import Rng

Background = Literal["white", "black", "random", "none"]


@dataclass(frozen=True)
class Frame:
    """Similarity from scene to world coordinates: `world = scale * rotation @ scene + translation`."""

    rotation: Float[Tensor, "3 3"]
    translation: Float[Tensor, "3"]
    scale: float

    @staticmethod
    def identity() -> Frame:
        """Scene and world coordinates coincide."""
        return Frame(torch.eye(3), torch.zeros(3), 1.0)

    def to_world(self, points: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p 3"]:
        """World coordinates of scene points."""
        return self.scale * points @ self.rotation.T + self.translation

    def to_scene(self, points: Float[Tensor, "*p 3"]) -> Float[Tensor, "*p 3"]:
        """Scene coordinates of world points."""
        return (points - self.translation) @ self.rotation / self.scale

    def poses_to_world(self, c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, "n 3 4"]:
        """Camera-to-world matrices of camera-to-scene matrices."""
        return torch.cat([self.rotation @ c2w[..., :3], self.to_world(c2w[..., 3])[..., None]], -1)

    def poses_to_scene(self, c2w: Float[Tensor, "n 3 4"]) -> Float[Tensor, "n 3 4"]:
        """Camera-to-scene matrices of camera-to-world matrices."""
        return torch.cat([self.rotation.T @ c2w[..., :3], self.to_scene(c2w[..., 3])[..., None]], -1)


@dataclass(frozen=True)
class Images:
    """Pixels of all images, concatenated, as uint8 RGB or RGB with straight alpha.

    `mask` marks valid pixels (None: all).
    """

    pixels: UInt8[Tensor, "p c"]
    offsets: Int[Tensor, " n_plus_1"]
    mask: Bool[Tensor, " p"] | None = None

    @cached_property
    def valid_pixels(self) -> Int[Tensor, " m"] | None:
        """Indices of valid pixels (None: all)."""
        return None if self.mask is None else self.mask.nonzero()[:, 0].int()

    @cached_property
    def valid_offsets(self) -> Int[Tensor, " n_plus_1"]:
        """Offset of each image among the valid pixels."""
        if self.valid_pixels is None:
            return self.offsets
        return torch.searchsorted(self.valid_pixels, self.offsets.to(self.valid_pixels.dtype))

    @cached_property
    def foreground_pixels(self) -> Int[Tensor, " m"] | None:
        """Indices of valid pixels with alpha above zero (None: all)."""
        if self.pixels.shape[-1] == 3:
            return self.valid_pixels
        opaque = self.pixels[:, 3] > 0
        return (opaque if self.mask is None else opaque & self.mask).nonzero()[:, 0].int()

    def select(self, rows: list[int]) -> Images:
        """A subset of the images."""
        spans = [slice(int(self.offsets[row]), int(self.offsets[row + 1])) for row in rows]
        ends = torch.tensor([0, *(span.stop - span.start for span in spans)]).cumsum(0)
        mask = None if self.mask is None else torch.cat([self.mask[span] for span in spans])
        return Images(torch.cat([self.pixels[span] for span in spans]), ends, mask)

    def image(self, index: int, size: tuple[int, int]) -> UInt8[Tensor, "h w c"]:
        """One image of `size` (width, height)."""
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return self.pixels[rows].reshape(size[1], size[0], -1)


@dataclass(frozen=True)
class Batch:
    """Rays and their ground truth colors, composited over `background`.

    `alpha` is that of the images, if they have one. `patch_size` is the height and width of image patches that the rays
    cover row by row (None: independent rays).
    """

    rays: Rays
    rgb: Float[Tensor, "r 3"]
    background: Float[Tensor, "r 3"]
    alpha: Float[Tensor, " r"] | None = None
    patch_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class Scene:
    """One split of a captured scene.

    `near` and `far` bound the rays of each image [scene units; 0 and 1 for NDC]: distances from the camera, or depths
    along its optical axis if `bounds_are_z_depth`. `box` is the region of interest (lower and upper corner); if
    `unbounded`, the scene extends beyond it. `background` is the color behind transparent pixels. `images` is None for
    a portable scene. `loss_weight` weights the pixels of each image in the loss (None: equal). With `has_object_mask`
    the alpha of the images is an object mask, and only pixels inside it are scored.
    """

    cameras: Cameras
    names: tuple[str, ...]
    near: Float[Tensor, " n"]
    far: Float[Tensor, " n"]
    box: Float[Tensor, "2 3"]
    frame: Frame
    background: Background = "none"
    unbounded: bool = False
    ndc: Ndc | None = None
    images: Images | None = None
    loss_weight: Float[Tensor, " n"] | None = None
    bounds_are_z_depth: bool = False
    has_object_mask: bool = False

    def __len__(self) -> int:
        return len(self.cameras)

    def to(self, device: torch.device | str) -> Scene:
        """The same scene with cameras and images on `device`."""
        moved = {"cameras": self.cameras.to(device), "near": self.near.to(device), "far": self.far.to(device)}
        if self.images is not None:
            mask = None if self.images.mask is None else self.images.mask.to(device)
            moved["images"] = Images(self.images.pixels.to(device), self.images.offsets.to(device), mask)
        if self.loss_weight is not None:
            moved["loss_weight"] = self.loss_weight.to(device)
        return replace(self, **moved)

    def select(self, rows: list[int]) -> Scene:
        """A subset of the images."""
        names = tuple(self.names[row] for row in rows)
        images = None if self.images is None else self.images.select(rows)
        moved = {"cameras": self.cameras[rows], "near": self.near[rows], "far": self.far[rows]}
        if self.loss_weight is not None:
            moved["loss_weight"] = self.loss_weight[rows]
        return replace(self, names=names, images=images, **moved)

    def without_images(self) -> Scene:
        """Cameras, bounds and box only."""
        return replace(self, images=None, loss_weight=None)

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of an image [pixels]."""
        width, height = self.cameras.size[index].tolist()
        return width, height

    def rays(self, index: int) -> Rays:
        """Rays of all pixels of an image, row by row."""
        return image_rays(
            self.cameras, index, self.near, self.far, self.ndc, bounds_are_z_depth=self.bounds_are_z_depth
        )

    def ground_truth(self, index: int) -> Float[Tensor, "h w 3"]:
        """One image over its background (white if it is random), RGB in [0, 1]."""
        assert self.images is not None
        pixels = self.images.image(index, self.size(index)).float() / 255
        return composite_over(pixels.reshape(-1, pixels.shape[-1]), background_color(self.background)).reshape(
            *pixels.shape[:2], 3
        )

    def object_mask(self, index: int) -> Bool[Tensor, "h w"]:
        """Pixels of an image with alpha of at least one half."""
        assert self.images is not None
        image = self.images.image(index, self.size(index))
        return image[..., 3] >= 128 if image.shape[-1] == 4 else torch.ones_like(image[..., 0], dtype=torch.bool)

    def valid_mask(self, index: int) -> Bool[Tensor, "h w"]:
        """Pixels of an image that are scored; with object masks only those inside."""
        assert self.images is not None
        width, height = self.size(index)
        rows = slice(int(self.images.offsets[index]), int(self.images.offsets[index + 1]))
        mask = torch.ones(height * width, dtype=torch.bool) if self.images.mask is None else self.images.mask[rows]
        counting = mask.reshape(height, width)
        return counting & self.object_mask(index) if self.has_object_mask else counting


def background_color(background: Background) -> Float[Tensor, "3"]:
    """Color behind transparent pixels, unless it is random."""
    return torch.zeros(3) if background in ("black", "none") else torch.ones(3)


def composite_over(pixels: Float[Tensor, "r c"], background: Float[Tensor, "*r 3"]) -> Float[Tensor, "r 3"]:
    """Straight-alpha pixels composited over a background; RGB pixels unchanged."""
    if pixels.shape[-1] == 3:
        return pixels
    alpha = pixels[:, 3:]
    return pixels[:, :3] * alpha + background * (1 - alpha)


def sample_batch(scene: Scene, rays: int, rng: Rng, *, single_image: bool = False, patch_size: int = 0) -> Batch:
    """Samples `rays` pixels uniformly over all valid pixels, and makes their rays.

    An image with a larger `loss_weight` is sampled more often, which has the expectation of a weighted loss with less
    variance. With `single_image` all pixels are from one image. With `patch_size` they form square patches of that size
    (or of the smallest image side) around foreground pixels.
    """
    images = scene.images
    assert images is not None
    if patch_size:
        side = min(patch_size, int(scene.cameras.size.min()))
        index = _drawn_pieces(scene, side, max(rays // side**2, 1), rng)
        return _batch(scene, index, rng, patch_size=(side, side))
    if single_image or scene.loss_weight is not None:
        index = _drawn_by_image(scene, images.valid_offsets, rays, rng, single_image=single_image)
    else:
        index = rng.integers(rays, int(images.valid_offsets[-1]))
    if images.valid_pixels is not None:
        index = images.valid_pixels[index].long()
    return _batch(scene, index, rng)


def _batch(scene: Scene, index: Int[Tensor, " r"], rng: Rng, patch_size: tuple[int, int] | None = None) -> Batch:
    """The rays and colors of these pixels."""
    images = scene.images
    assert images is not None
    camera, pixel = unravel_pixels(index, images.offsets, scene.cameras.size[:, 0])
    pixels = images.pixels[index].float() / 255
    shape = (len(index), 3)
    # Opaque images get a new random background each time, so that the field cannot rely on it.
    if scene.background in ("random", "none"):
        background = rng.uniform(*shape)
    else:
        background = background_color(scene.background).to(pixels.device).expand(shape)
    return Batch(
        rays=camera_rays(
            scene.cameras, camera, pixel, scene.near, scene.far, scene.ndc, bounds_are_z_depth=scene.bounds_are_z_depth
        ),
        rgb=composite_over(pixels, background),
        background=background,
        alpha=pixels[:, 3] if pixels.shape[-1] == 4 else None,
        patch_size=patch_size,
    )


def unravel_pixels(
    index: Int[Tensor, " r"], offsets: Int[Tensor, " n_plus_1"], width: Int[Tensor, " n"]
) -> tuple[Int[Tensor, " r"], Int[Tensor, "r 2"]]:
    """Image index and pixel `(column, row)` of indices into the concatenated pixels."""
    camera = torch.searchsorted(offsets, index, right=True) - 1
    within = index - offsets[camera]
    return camera, torch.stack([within % width[camera], within // width[camera]], -1)


def _drawn_pieces(scene: Scene, side: int, count: int, rng: Rng) -> Int[Tensor, " r"]:
    """Indices of the pixels of square patches around foreground pixels."""
    images = scene.images
    assert images is not None
    among = images.foreground_pixels
    index = rng.integers(count, int(images.offsets[-1]) if among is None else len(among))
    index = index if among is None else among[index].long()
    camera, pixel = unravel_pixels(index, images.offsets, scene.cameras.size[:, 0])
    size = scene.cameras.size[camera]
    column, row = torch.minimum((pixel - side // 2).clamp_min(0), size - side).unbind(-1)
    step = torch.arange(side, device=index.device)
    rows = (row[:, None] + step)[:, :, None] * size[:, 0, None, None]
    return (images.offsets[camera][:, None, None] + rows + column[:, None, None] + step).flatten()


def _drawn_by_image(
    scene: Scene, spans: Int[Tensor, " n_plus_1"], rays: int, rng: Rng, *, single_image: bool
) -> Int[Tensor, " {rays}"]:
    """Indices among the valid pixels: an image in proportion to its weighted pixel count, then a pixel of it."""
    pixels = spans[1:] - spans[:-1]
    ends = (pixels if scene.loss_weight is None else pixels * scene.loss_weight.double()).cumsum(0)
    # A share just below 1 would round up to the end: the last image that has pixels is meant.
    place = rng.replicated().uniform(1, 1) if single_image else rng.uniform(rays, 1)
    last = int(pixels.nonzero()[-1])
    image = torch.searchsorted(ends, place[:, 0] * ends[-1], right=True).clamp(max=last).expand(rays)
    within = (rng.uniform(rays, 1)[:, 0] * pixels[image]).long()
    return spans[image] + torch.minimum(within, pixels[image] - 1)


def median_pixel_width(scene: Scene) -> float:
    """Median over all pixels of their width at the center of the box [scene units]."""
    width = pixel_widths(scene)
    order = width.argsort()
    pixels = scene.cameras.size.prod(-1)[order].cumsum(0)
    return float(width[order][torch.searchsorted(pixels, pixels[-1] // 2)])


def pixel_widths(scene: Scene) -> Float[Tensor, " n"]:
    """Pixel width of each image at the center of the box [scene units]."""
    if scene.ndc is not None:
        return 2 / scene.cameras.size[:, 0]
    distance = (scene.cameras.positions - scene.box.mean(0)).norm(dim=-1)
    return distance / scene.cameras.focal.mean(-1)
