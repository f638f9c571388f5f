"""Colors of a surface from the images that see it."""

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
from lumifield.export.cameras import in_world
from lumifield.export.surface import Surface
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rasterize import rasterize

# Surfaces seen at a sharper angle than this (cosine) tell little; a color this far from the mean counts half.
GRAZING, OUTLYING = 0.2, 0.1
TRUSTED = 1e-6
UNSEEN = 0.5


@dataclass(frozen=True)
class Spots:
    """Places on a surface, and the unit normals there, in world coordinates."""

    points: Float[np.ndarray, "p 3"]
    normals: Float[np.ndarray, "p 3"]


Paint = Callable[[Spots], UInt8[np.ndarray, "p 3"]]


@dataclass(frozen=True)
class Shot:
    """An image with straight alpha (0: does not count), and the camera (one row, world coordinates) that took it."""

    camera: Cameras
    rgba: Float[Tensor, "h w 4"]


def photographs(scene: Scene) -> Iterator[Shot]:
    """The images of a scene; pixels that do not count are transparent."""
    cameras = in_world(scene)
    assert scene.images is not None
    for index in range(len(scene)):
        pixels = scene.images.image(index, scene.size(index)).float() / 255
        alpha = pixels[..., 3:] if pixels.shape[-1] == 4 else torch.ones_like(pixels[..., :1])
        counts = scene.valid_mask(index)[..., None]
        yield Shot(cameras[[index]], torch.cat([pixels[..., :3], alpha * counts], -1))


def projected(
    camera: Cameras, points: Float[np.ndarray, "p 3"]
) -> tuple[Float[np.ndarray, "p 2"], Float[np.ndarray, " p"]]:
    """Where points lie in a camera's image [pixels], and their depth along its optical axis."""
    image, depth = camera.project(torch.from_numpy(points))
    return image[0].numpy(), depth[0].numpy()


def fused(
    spots: Spots, surface: Surface, shots: Callable[[], Iterable[Shot]]
) -> tuple[Float[np.ndarray, "p 3"], Bool[np.ndarray, " p"]]:
    """A robust mean of what images show of each spot, and which spots any of them shows.

    An image counts by how squarely and how closely it sees the spot, if the surface itself does not hide it there.
    The second round weighs each color by its distance r from the first round's mean, 1 / (1 + (r / `OUTLYING`)^2): a
    reflection that moves with the camera leaves little.
    """
    mean, total = None, np.empty(0)
    for _ in range(2):
        total, sums = np.zeros(len(spots.points)), np.zeros_like(spots.points)
        for shot in shots():
            row, rgb, weight = sighted(spots, surface, shot)
            if mean is not None:
                weight = weight / (1 + ((rgb - mean[row]) ** 2).sum(-1) / OUTLYING**2)
            total[row] += weight
            sums[row] += weight[:, None] * rgb
        mean = sums / np.maximum(total, TRUSTED)[:, None]
    assert mean is not None
    return mean, total > TRUSTED


def sighted(
    spots: Spots, surface: Surface, shot: Shot
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, "k 3"], Float[np.ndarray, " k"]]:
    """The rows of the spots that an image shows, their colors in it, and how much it is to be trusted there."""
    view = in_view(spots, surface, shot.camera)
    rgba = looked_up(shot.rgba, torch.from_numpy(view.image)).numpy()
    kept = np.flatnonzero((view.cosine > GRAZING) & (rgba[:, 3] > 0))
    alpha = rgba[kept, 3]
    return view.row[kept], rgba[kept, :3] / alpha[:, None], alpha * (view.cosine[kept] / view.pixel[kept]) ** 2


@dataclass(frozen=True)
class InView:
    """The rows of the spots that a camera sees, and for each: where in the image [pixels], how wide a pixel is there
    [world units], and the cosine of the angle between normal and sight."""

    row: Int[np.ndarray, " k"]
    image: Float[np.ndarray, "k 2"]
    pixel: Float[np.ndarray, " k"]
    cosine: Float[np.ndarray, " k"]


def in_view(spots: Spots, surface: Surface, camera: Cameras) -> InView:
    """The spots that face a camera (one row) and that `surface` does not hide from it."""
    width, height = camera.size[0].tolist()
    sight = camera.positions.numpy() - spots.points
    cosine = (sight * spots.normals).sum(-1) / np.maximum(np.linalg.norm(sight, axis=-1), 1e-12)
    image, depth = projected(camera, spots.points)
    row = np.flatnonzero((cosine > 0) & (depth > 0) & (image >= 0).all(-1) & (image < [width, height]).all(-1))
    image, depth, cosine = image[row], depth[row], cosine[row]
    pixel = depth / float(camera.focal.mean())
    # The nearest surface within a pixel of the spot: a tilted surface comes nearer by less than the slack.
    nearest = minimum_filter(rasterize(*projected(camera, surface.vertices), surface.faces, (width, height)).depth, 3)
    column, line = image.astype(np.int64).T
    slack = 2 * pixel / np.maximum(cosine, GRAZING)
    shown = depth < nearest[line, column] + slack
    return InView(row[shown], image[shown], pixel[shown], cosine[shown])


def looked_up(rgba: Float[Tensor, "h w 4"], image: Float[Tensor, "p 2"]) -> Float[Tensor, "p 4"]:
    """Premultiplied color and alpha at points of an image [pixels], between four pixels."""
    premultiplied = torch.cat([rgba[..., :3] * rgba[..., 3:], rgba[..., 3:]], -1).permute(2, 0, 1)[None]
    size = torch.tensor([rgba.shape[1], rgba.shape[0]])
    grid = (2 * image / size - 1).float()[None, None]
    found = F.grid_sample(premultiplied, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found[0, :, 0].T.double()


def completed(
    points: Float[np.ndarray, "p 3"], rgb: Float[np.ndarray, "p 3"], known: Bool[np.ndarray, " p"]
) -> Float[np.ndarray, "p 3"]:
    """The colors, those not known taken from the nearest point that is; gray where none is."""
    if not known.any():
        return np.full_like(rgb, UNSEEN)
    nearest = KDTree(points[known]).query(points[~known])[1]
    filled = rgb.copy()
    filled[~known] = rgb[known][nearest]
    return filled
