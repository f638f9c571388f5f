"""Surface colors fused from the training images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from scipy.ndimage import minimum_filter
from scipy.spatial import KDTree
from torch import Tensor

from lumifield.data.scene import Scene
from lumifield.export.cameras import to_world_cameras
from lumifield.export.marching_cubes import Surface
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rasterize import rasterize

# Minimum cosine of the viewing angle; distance from the mean color at which the weight is one half.
GRAZING, OUTLYING = 0.2, 0.1
TRUSTED = 1e-6
UNSEEN = 0.5


@dataclass(frozen=True)
class SurfaceSamples:
    """Surface points with unit normals in world coordinates."""

    points: Float[np.ndarray, "p 3"]
    normals: Float[np.ndarray, "p 3"]


Paint = Callable[[SurfaceSamples], UInt8[np.ndarray, "p 3"]]


@dataclass(frozen=True)
class PosedImage:
    """An image with straight alpha (0: invalid) and its camera in world coordinates."""

    camera: Cameras
    rgba: Float[Tensor, "h w 4"]


def posed_images_of(scene: Scene) -> Iterator[PosedImage]:
    """Images of a scene; invalid pixels are transparent."""
    cameras = to_world_cameras(scene)
    assert scene.images is not None
    for index in range(len(scene)):
        pixels = scene.images.image(index, scene.size(index)).float() / 255
        alpha = pixels[..., 3:] if pixels.shape[-1] == 4 else torch.ones_like(pixels[..., :1])
        counts = scene.valid_mask(index)[..., None]
        yield PosedImage(cameras[[index]], torch.cat([pixels[..., :3], alpha * counts], -1))


def project_points(
    camera: Cameras, points: Float[np.ndarray, "p 3"]
) -> tuple[Float[np.ndarray, "p 2"], Float[np.ndarray, " p"]]:
    """Image coordinates [pixels] and depths of points in a camera."""
    image, depth = camera.project(torch.from_numpy(points))
    return image[0].numpy(), depth[0].numpy()


def fuse_colors(
    samples: SurfaceSamples, surface: Surface, posed_images: Callable[[], Iterable[PosedImage]]
) -> tuple[Float[np.ndarray, "p 3"], Bool[np.ndarray, " p"]]:
    """Robust mean color of each sample over the images that see it, and which samples are seen.

    An image is weighted by viewing angle and distance if the surface does not occlude the sample. A second round
    weights each color by its distance r to the first mean, 1 / (1 + (r / `OUTLYING`)^2), which suppresses
    view-dependent reflections.
    """
    mean, total = None, np.empty(0)
    for _ in range(2):
        total, sums = np.zeros(len(samples.points)), np.zeros_like(samples.points)
        for shot in posed_images():
            row, rgb, weight = colors_in_image(samples, surface, shot)
            if mean is not None:
                weight = weight / (1 + ((rgb - mean[row]) ** 2).sum(-1) / OUTLYING**2)
            total[row] += weight
            sums[row] += weight[:, None] * rgb
        mean = sums / np.maximum(total, TRUSTED)[:, None]
    assert mean is not None
    return mean, total > TRUSTED


def colors_in_image(
    samples: SurfaceSamples, surface: Surface, shot: PosedImage
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, "k 3"], Float[np.ndarray, " k"]]:
    """Rows of the samples that an image sees, their colors, and their weights."""
    view = find_visible_samples(samples, surface, shot.camera)
    rgba = sample_premultiplied(shot.rgba, torch.from_numpy(view.image)).numpy()
    kept = np.flatnonzero((view.cosine > GRAZING) & (rgba[:, 3] > 0))
    alpha = rgba[kept, 3]
    return view.row[kept], rgba[kept, :3] / alpha[:, None], alpha * (view.cosine[kept] / view.pixel[kept]) ** 2


@dataclass(frozen=True)
class VisibleSamples:
    """Rows of the samples that a camera sees, their image coordinates [pixels], pixel widths [world units], and the
    cosine between normal and viewing direction."""

    row: Int[np.ndarray, " k"]
    image: Float[np.ndarray, "k 2"]
    pixel: Float[np.ndarray, " k"]
    cosine: Float[np.ndarray, " k"]


def find_visible_samples(samples: SurfaceSamples, surface: Surface, camera: Cameras) -> VisibleSamples:
    """Samples that face a camera and that `surface` does not occlude."""
    width, height = camera.size[0].tolist()
    sight = camera.positions.numpy() - samples.points
    cosine = (sight * samples.normals).sum(-1) / np.maximum(np.linalg.norm(sight, axis=-1), 1e-12)
    image, depth = project_points(camera, samples.points)
    row = np.flatnonzero((cosine > 0) & (depth > 0) & (image >= 0).all(-1) & (image < [width, height]).all(-1))
    image, depth, cosine = image[row], depth[row], cosine[row]
    pixel = depth / float(camera.focal.mean())
    # Nearest surface within a pixel of the sample: a tilted surface deviates by less than the tolerance.
    nearest = minimum_filter(
        rasterize(*project_points(camera, surface.vertices), surface.faces, (width, height)).depth, 3
    )
    column, line = image.astype(np.int64).T
    slack = 2 * pixel / np.maximum(cosine, GRAZING)
    shown = depth < nearest[line, column] + slack
    return VisibleSamples(row[shown], image[shown], pixel[shown], cosine[shown])


def sample_premultiplied(rgba: Float[Tensor, "h w 4"], image: Float[Tensor, "p 2"]) -> Float[Tensor, "p 4"]:
    """Bilinear samples of premultiplied color and alpha [pixels]."""
    premultiplied = torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1).permute(2, 0, 1)[None]
    size = torch.tensor([rgba.shape[1], rgba.shape[0]])
    grid = (2 * image / size - 1).float()[None, None]
    found = F.grid_sample(premultiplied, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found[0, :, 0].T.double()


def fill_unknown_colors(
    points: Float[np.ndarray, "p 3"], rgb: Float[np.ndarray, "p 3"], known: Bool[np.ndarray, " p"]
) -> Float[np.ndarray, "p 3"]:
    """Colors, with unknown ones taken from the nearest known sample; gray if there is none."""
    if not known.any():
        return np.full_like(rgb, UNSEEN)
    nearest = KDTree(points[known]).query(points[~known])[1]
    filled = rgb.copy()
    filled[~known] = rgb[known][nearest]
    return filled
