"""COLMAP scenes: a sparse model, binary or text, with any camera model, and the images."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pycolmap
import torch
from jaxtyping import Float

from lumifield.data import Source, colmap_model, held_out_views, image_files, sparse_reconstruction
from lumifield.data.capture import CaptureFiles
from lumifield.data.scene import Scene
from lumifield.data.sparse_reconstruction import PinholeImage, Reconstruction
from lumifield.data.undistort import Undistortion
from lumifield.errors import DataError

LAYOUT = "sparse (COLMAP)"

# Folders of the model and its images, relative to the scene.
LOCATIONS = (
    ("sparse/0", "images"),
    ("sparse", "images"),
    ("dense/sparse", "dense/images"),
    ("dense/sparse/0", "dense/images"),
)


@dataclass(frozen=True)
class ColmapCamera:
    """A camera of any COLMAP model."""

    camera: pycolmap.Camera

    def pixels(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Projects points of the plane at depth 1 [pixels]."""
        return np.asarray(self.camera.img_from_cam(np.concatenate([points, np.ones_like(points[:, :1])], 1)))

    def intrinsics(self, path: Path, size: tuple[int, int]) -> PinholeImage:
        """Intrinsics of pinhole and OpenCV models; images of other models are resampled."""
        camera, stated = self.camera, (self.camera.width, self.camera.height)
        if size != stated:
            found, expected = (f"{width}x{height}" for width, height in (size, stated))
            fix = "give the images that were reconstructed"
            raise DataError(path, "image size", found, f"{expected}, as its camera states", fix)
        match camera.model.name:
            case "SIMPLE_PINHOLE" | "PINHOLE" | "SIMPLE_RADIAL" | "RADIAL" | "OPENCV":
                distortion = [float(camera.params[index]) for index in camera.extra_params_idxs()]
                k1, k2, p1, p2 = (*distortion, 0.0, 0.0, 0.0, 0.0)[:4]
                return PinholeImage(*_pinhole(camera), size, (k1, k2, p1, p2))
            case "EQUIRECTANGULAR":
                fix = "convert the panoramas to perspective images"
                raise DataError(
                    path, "camera model", "EQUIRECTANGULAR", "a camera with a field of view below 180 degrees", fix
                )
            case _:
                return PinholeImage.resampled(self.with_undistortion())

    def with_undistortion(self) -> Undistortion:
        """The largest pinhole image that the image of this camera covers completely."""
        plain = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), self.camera)
        return Undistortion(self, *_pinhole(plain), (plain.width, plain.height))


def matches(folder: Path) -> bool:
    """Whether there is a folder of sparse models."""
    return any((folder / model).is_dir() for model in ("sparse", "dense/sparse"))


def open_files(source: Source) -> CaptureFiles:
    """The model, with the splits of a hold-out of images sorted by name."""
    taken = load_colmap(source.data)
    extent = cache(lambda: sparse_reconstruction.inward_extent(taken))

    def locate(split: str) -> tuple[Scene, image_files.ImageFiles]:
        rows = held_out_views.split_rows(source, split, taken.c2w[:, :, 3])
        return sparse_reconstruction.scene_from_reconstruction(source, taken, rows, extent())

    return CaptureFiles(held_out_views.split_names(source), locate)


def load_colmap(folder: Path) -> Reconstruction:
    """The model of a scene folder with its images; raises `DataError` if there is no usable one."""
    places = [(folder / model, folder / images) for model, images in LOCATIONS if colmap_model.is_model(folder / model)]
    if not places:
        raise DataError(folder, "sparse model", "missing", "sparse/0/cameras.bin or .txt", "reconstruct the scene")
    model, images = colmap_model.load_colmap_model(places[0][0]), places[0][1]
    lenses = {number: ColmapCamera(camera) for number, camera in model.cameras.items()}
    order = np.argsort(model.point_ids)
    return Reconstruction(
        path=model.images,
        names=tuple(shot.name for shot in model.shots),
        images=tuple(images / shot.name for shot in model.shots),
        c2w=torch.from_numpy(np.stack([shot.c2w(model.images) for shot in model.shots])),
        calibrations=tuple(lenses[shot.camera] for shot in model.shots),
        points=model.points[order],
        seen=tuple(_rows(model, shot, order) for shot in model.shots),
    )


def _rows(model: colmap_model.ColmapModel, shot: colmap_model.ColmapImage, order: np.ndarray) -> np.ndarray:
    """Rows of the points of an image in the points sorted by id."""
    known = model.point_ids[order]
    rows = np.searchsorted(known, shot.points).clip(max=max(len(known) - 1, 0))
    if len(rows) and (not len(known) or (known[rows] != shot.points).any()):
        fix = "write all files of the model again"
        raise DataError(model.images, f"points of {shot.name}", "partly missing", "points of points3D", fix)
    return rows


def _pinhole(camera: pycolmap.Camera) -> tuple[tuple[float, float], tuple[float, float]]:
    """Focal lengths and principal point [pixels]."""
    return (camera.focal_length_x, camera.focal_length_y), (camera.principal_point_x, camera.principal_point_y)
