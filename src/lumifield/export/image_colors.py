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
from lumifield.export.marching_cubes import TriangleMesh
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rasterize import rasterize

MIN_COSINE = 0.2
"""Minimum cosine between normal and viewing direction at which an image colors a sample."""
OUTLIER_DISTANCE = 0.1
"""RGB distance from the mean color at which the weight of an image is one half."""
MIN_TOTAL_WEIGHT = 1e-6
UNKNOWN_GRAY = 0.5


@dataclass(frozen=True)
class SurfaceSamples:
    """Surface points with unit normals in world coordinates."""

    points: Float[np.ndarray, "p 3"]
    normals: Float[np.ndarray, "p 3"]


ColorFunction = Callable[[SurfaceSamples], UInt8[np.ndarray, "p 3"]]


@dataclass(frozen=True)
class PosedImage:
    """An image with straight alpha (0: invalid) and its camera in world coordinates."""

    camera: Cameras
    rgba: Float[Tensor, "h w 4"]


def iterate_posed_images(scene: Scene) -> Iterator[PosedImage]:
    """Images of a scene; invalid pixels are transparent."""
    cameras = to_world_cameras(scene)
    assert scene.images is not None
    for index in range(len(scene)):
        pixels = scene.images.image(index, scene.size(index)).float() / 255
        alpha = pixels[..., 3:] if pixels.shape[-1] == 4 else torch.ones_like(pixels[..., :1])
        is_valid = scene.valid_mask(index)[..., None]
        yield PosedImage(cameras[[index]], torch.cat([pixels[..., :3], alpha * is_valid], -1))


def project_to_camera(
    camera: Cameras, points: Float[np.ndarray, "p 3"]
) -> tuple[Float[np.ndarray, "p 2"], Float[np.ndarray, " p"]]:
    """Image coordinates [pixels] and depths of points in a camera."""
    image, depth = camera.project(torch.from_numpy(points))
    return image[0].numpy(), depth[0].numpy()


def fuse_colors(
    samples: SurfaceSamples, mesh: TriangleMesh, posed_images: Callable[[], Iterable[PosedImage]]
) -> tuple[Float[np.ndarray, "p 3"], Bool[np.ndarray, " p"]]:
    """Robust mean color of each sample over the images that see it, and a mask of the samples that any image sees.

    An image is weighted by viewing angle and distance if the mesh does not occlude the sample. A second round
    weights each color by its distance r to the first mean, 1 / (1 + (r / `OUTLIER_DISTANCE`)^2), which suppresses
    view-dependent reflections.
    """
    mean, total = None, np.empty(0)
    for _ in range(2):
        total, sums = np.zeros(len(samples.points)), np.zeros_like(samples.points)
        for posed_image in posed_images():
            row, rgb, weight = sample_image_colors(samples, mesh, posed_image)
            if mean is not None:
                weight = weight / (1 + ((rgb - mean[row]) ** 2).sum(-1) / OUTLIER_DISTANCE**2)
            total[row] += weight
            sums[row] += weight[:, None] * rgb
        mean = sums / np.maximum(total, MIN_TOTAL_WEIGHT)[:, None]
    assert mean is not None
    return mean, total > MIN_TOTAL_WEIGHT


def sample_image_colors(
    samples: SurfaceSamples, mesh: TriangleMesh, posed_image: PosedImage
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, "k 3"], Float[np.ndarray, " k"]]:
    """Rows of the samples that an image sees, their colors, and their weights."""
    visible = find_visible_samples(samples, mesh, posed_image.camera)
    rgba = sample_premultiplied(posed_image.rgba, torch.from_numpy(visible.image)).numpy()
    kept = np.flatnonzero((visible.cosine > MIN_COSINE) & (rgba[:, 3] > 0))
    alpha = rgba[kept, 3]
    weight = alpha * (visible.cosine[kept] / visible.pixel_width[kept]) ** 2
    return visible.row[kept], rgba[kept, :3] / alpha[:, None], weight


@dataclass(frozen=True)
class VisibleSamples:
    """Samples that a camera sees: row, image coordinates [pixels], width of a pixel there [world units], and cosine
    between normal and viewing direction."""

    row: Int[np.ndarray, " k"]
    image: Float[np.ndarray, "k 2"]
    pixel_width: Float[np.ndarray, " k"]
    cosine: Float[np.ndarray, " k"]


def find_visible_samples(samples: SurfaceSamples, mesh: TriangleMesh, camera: Cameras) -> VisibleSamples:
    """Samples that face a camera and that `mesh` does not occlude."""
    width, height = camera.size[0].tolist()
    to_camera = camera.positions.numpy() - samples.points
    cosine = (to_camera * samples.normals).sum(-1) / np.maximum(np.linalg.norm(to_camera, axis=-1), 1e-12)
    image, depth = project_to_camera(camera, samples.points)
    row = np.flatnonzero((cosine > 0) & (depth > 0) & (image >= 0).all(-1) & (image < [width, height]).all(-1))
    image, depth, cosine = image[row], depth[row], cosine[row]
    pixel_width = depth / float(camera.focal.mean())
    depth_map = rasterize(*project_to_camera(camera, mesh.vertices), mesh.faces, (width, height)).depth
    # Nearest surface within a pixel of the sample: a tilted surface deviates by less than the tolerance.
    nearest_depth = minimum_filter(depth_map, 3)
    x, y = image.astype(np.int64).T
    tolerance = 2 * pixel_width / np.maximum(cosine, MIN_COSINE)
    is_visible = depth < nearest_depth[y, x] + tolerance
    return VisibleSamples(row[is_visible], image[is_visible], pixel_width[is_visible], cosine[is_visible])


def sample_premultiplied(rgba: Float[Tensor, "h w 4"], image: Float[Tensor, "p 2"]) -> Float[Tensor, "p 4"]:
    """Bilinear samples of premultiplied color and alpha at image coordinates [pixels]."""
    premultiplied = torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1).permute(2, 0, 1)[None]
    size = torch.tensor([rgba.shape[1], rgba.shape[0]])
    grid = (2 * image / size - 1).float()[None, None]
    found = F.grid_sample(premultiplied, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found[0, :, 0].T.double()


def fill_unknown_colors(
    points: Float[np.ndarray, "p 3"], rgb: Float[np.ndarray, "p 3"], is_known: Bool[np.ndarray, " p"]
) -> Float[np.ndarray, "p 3"]:
    """Replaces unknown colors by that of the nearest known sample, or by gray if there is none."""
    if not is_known.any():
        return np.full_like(rgb, UNKNOWN_GRAY)
    nearest = KDTree(points[is_known]).query(points[~is_known])[1]
    filled = rgb.copy()
    filled[~is_known] = rgb[is_known][nearest]
    return filled
