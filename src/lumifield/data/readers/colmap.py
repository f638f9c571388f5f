"""COLMAP scenes: a sparse model, binary or text, with cameras of every model, and the images beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
import torch
from jaxtyping import Float

from lumifield.data import Source, colmap_model, held_out_views, image_files, sparse_reconstruction
from lumifield.data.reader import Reader
from lumifield.data.scene import Scene
from lumifield.data.sparse_reconstruction import PinholeImage, Reconstruction
from lumifield.data.undistort import Undistortion
from lumifield.errors import DataError

# Where a model may be, and where its images are, below the folder of a scene.
SAMPLE_BLOCKS = (
    ("sparse/0", "images"),
    ("sparse", "images"),
    ("dense/sparse", "dense/images"),
    ("dense/sparse/0", "dense/images"),
)


@dataclass(frozen=True)
class Camera:
    """A camera of any of COLMAP's models."""

    camera: pycolmap.Camera

    def pixels(self, points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
        """Where points of the plane at depth 1 appear."""
        return np.asarray(self.camera.img_from_cam(np.concatenate([points, np.ones_like(points[:, :1])], 1)))

    def optics(self, path: Path, size: tuple[int, int]) -> PinholeImage:
        """Pinholes and OpenCV's radial and tangential distortion as they are; all others are resampled."""
        camera, stated = self.camera, (self.camera.width, self.camera.height)
        if size != stated:
            found, expected = (f"{width}x{height}" for width, height in (size, stated))
            fix = "give the images that were reconstructed"
            raise DataError(path, "image size", found, f"{expected}, as its camera states", fix)
        match camera.model.name:
            case "SIMPLE_PINHOLE" | "PINHOLE" | "SIMPLE_RADIAL" | "RADIAL" | "OPENCV":
                bend = [float(camera.params[index]) for index in camera.extra_params_idxs()]
                k1, k2, p1, p2 = (*bend, 0.0, 0.0, 0.0, 0.0)[:4]
                return PinholeImage(*_pinhole(camera), size, (k1, k2, p1, p2))
            case "EQUIRECTANGULAR":
                fix = "cut the panoramas into perspective images"
                raise DataError(path, "camera model", "EQUIRECTANGULAR", "a camera that looks to one side", fix)
            case _:
                return PinholeImage.resampled(self.with_undistortion())

    def with_undistortion(self) -> Undistortion:
        """The largest pinhole image whose every pixel this camera's image shows."""
        plain = pycolmap.undistort_camera(pycolmap.UndistortCameraOptions(), self.camera)
        return Undistortion(self, *_pinhole(plain), (plain.width, plain.height))


def colmap_splits(source: Source) -> tuple[str, ...]:
    """Those of the hold-out."""
    return held_out_views.split_names(source)


def colmap_cameras(source: Source, split: str) -> tuple[Scene, image_files.ImageFiles]:
    """One split without its pixels, and the files that hold them; every eighth image by name is held out."""
    taken = load_colmap(source.data)
    rows = held_out_views.split_rows(source, split, taken.c2w[:, :, 3])
    return sparse_reconstruction.scene_from_reconstruction(
        source, taken, rows, sparse_reconstruction.inward_extent(taken)
    )


def load_colmap(folder: Path) -> Reconstruction:
    """The model in a scene's folder with its images; raises `DataError` where there is none that can be used."""
    places = [
        (folder / model, folder / images) for model, images in SAMPLE_BLOCKS if colmap_model.is_model(folder / model)
    ]
    if not places:
        raise DataError(folder, "sparse model", "missing", "sparse/0/cameras.bin or .txt", "reconstruct the scene")
    model, images = colmap_model.load_colmap_model(places[0][0]), places[0][1]
    lenses = {number: Camera(camera) for number, camera in model.cameras.items()}
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
    """The places of an image's points among the points by number."""
    known = model.point_ids[order]
    rows = np.searchsorted(known, shot.points).clip(max=max(len(known) - 1, 0))
    if len(rows) and (not len(known) or (known[rows] != shot.points).any()):
        fix = "write all files of the model again"
        raise DataError(model.images, f"points of {shot.name}", "partly missing", "points of points3D", fix)
    return rows


def _pinhole(camera: pycolmap.Camera) -> tuple[tuple[float, float], tuple[float, float]]:
    """Focal lengths and center."""
    return (camera.focal_length_x, camera.focal_length_y), (camera.principal_point_x, camera.principal_point_y)


READER = Reader(splits=colmap_splits, cameras=colmap_cameras)
