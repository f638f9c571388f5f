"""Posed images in another layout: learnit's arrays, COLMAP's model, or DTU's. Lenses are pinholes there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import pycolmap
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lumifield import data
from lumifield.data import Source
from lumifield.data.image_files import ImageFiles
from lumifield.data.readers import colmap, learnit
from lumifield.data.scene import Frame, Scene
from lumifield.data.undistort import Undistortion
from lumifield.errors import DataError
from lumifield.geometry.poses import opengl_to_opencv
from lumifield.runtime.folders import fresh_folder
from lumifield.runtime.image_io import to_uint8
from lumifield.synthetic.png_files import save_png

Progress = Callable[[int, int], None]

# Where learnit's splits go by position, the first images are the test.
ORDER = ("test", "val", "train")
JPEG = (".jpg", ".jpeg", ".JPG", ".JPEG")
QUALITY = 95


@dataclass(frozen=True)
class ConvertedImage:
    """An image of a scene, and the pinhole camera that it is written for, in the world of the scene.

    `bounds` are the distances [world units] between which it sees something.
    """

    scene: Scene
    files: ImageFiles
    row: int
    split: str
    c2w: Float[Tensor, "3 4"]
    focal: tuple[float, float]
    center: tuple[float, float]
    size: tuple[int, int]
    bounds: tuple[float, float]
    undistortion: Undistortion | None

    def write(self, path: Path) -> None:
        """The image as JPEG: the very file where it is one and stays as it is."""
        path.parent.mkdir(parents=True, exist_ok=True)
        original = self.files.paths[self.row]
        if self.undistortion is None and self.files.undistortion[self.row] is None and original.suffix in JPEG:
            shutil.copyfile(original, path)
            return
        shown = to_uint8(data.attach_images(self.scene, self.files, [self.row]).ground_truth(0)).numpy()
        Image.fromarray(self._resampled(shown)).save(path, quality=QUALITY, subsampling=0)

    def pixels(self) -> UInt8[np.ndarray, "h w c"]:
        """The image as it is read, with alpha where it has some."""
        taken = data.attach_images(self.scene, self.files, [self.row])
        assert taken.images is not None
        return self._resampled(taken.images.image(0, taken.size(0)).numpy())

    def _resampled(self, pixels: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "rows columns c"]:
        return pixels if self.undistortion is None else self.undistortion.apply(pixels)


def convert(source: Source, out: Path, layout: Literal["learnit", "colmap", "dtu"], progress: Progress) -> None:
    """Writes the images, test first, then val, then train, and what the layout says about them, and their splits.

    Raises `DataError` where rays of the scene have no bounds in its world, and where `out` is not empty or cannot be
    written.
    """
    shots = _shots(source)
    with fresh_folder(out) as folder:
        if layout == "dtu":
            _write_object(shots, folder, progress)
            return
        images = folder / ("images" if layout == "learnit" else "dense/images")
        names = _write_images(shots, images, folder / "splits.tsv", progress)
        if layout == "learnit":
            _write_arrays(shots, folder)
        else:
            _write_model(shots, names, folder / "dense/sparse")


def _write_arrays(shots: list[ConvertedImage], folder: Path) -> None:
    np.save(folder / "c2w_mats.npy", np.stack([_opengl(shot) for shot in shots]))
    np.save(folder / "kinv_mats.npy", np.stack([_inverse(shot) for shot in shots]))
    # Readers widen these.
    np.save(folder / "bds.npy", np.array([shot.bounds for shot in shots]) / (learnit.NEAR, learnit.FAR))
    np.save(folder / "res_mats.npy", np.array([shot.size[::-1] for shot in shots]))


def _write_model(shots: list[ConvertedImage], names: list[str], folder: Path) -> None:
    """COLMAP's binary files, without points."""
    model = pycolmap.Reconstruction()
    for number, (shot, name) in enumerate(zip(shots, names, strict=True), 1):
        (width, height), params = shot.size, [*shot.focal, *shot.center]
        lens = pycolmap.Camera(model="PINHOLE", width=width, height=height, params=params, camera_id=number)
        model.add_camera_with_trivial_rig(lens)
        turned, position = shot.c2w[:, :3].T.numpy(), shot.c2w[:, 3:].numpy()
        pose = pycolmap.Rigid3d(np.concatenate([turned, -turned @ position], 1))
        model.add_image_with_trivial_frame(pycolmap.Image(name=name, camera_id=number, image_id=number), pose)
    folder.mkdir()
    model.write_binary(folder)


def _write_object(shots: list[ConvertedImage], folder: Path, progress: Progress) -> None:
    """DTU's layout: images and silhouettes as PNG, matrices of the cameras and of the sphere, and `splits.json`."""
    matrices, listed = {}, {split: [] for split in ORDER}
    for number, shot in enumerate(shots):
        name, pixels = f"{number:05d}_{PurePosixPath(shot.scene.names[shot.row]).stem}", shot.pixels()
        listed[shot.split].append(name)
        save_png(folder / f"image/{name}.png", pixels[..., :3])
        if shot.files.alpha:
            save_png(folder / f"mask/{name}.png", pixels[..., 3])
        matrices[f"world_mat_{number}"] = _projection(shot)
        # The scene frame of an object that is cut out is that of its sphere; of others it is computed by the reader.
        if shot.scene.has_object_mask:
            matrices[f"scale_mat_{number}"] = _matrix(shot.scene.frame)
        progress(number + 1, len(shots))
    np.savez(folder / "cameras_sphere.npz", **matrices)
    (folder / "splits.json").write_text(json.dumps(listed, indent=1), encoding="utf-8")


def _shots(source: Source) -> list[ConvertedImage]:
    known = data.list_splits(source)
    found = []
    for split in ORDER:
        if split in known:
            scene, files = data.locate_images(source, split)
            if scene.ndc is not None:
                expected = "images with bounds in the world"
                raise DataError(source.data, "layout", "forward (normalized device)", expected, "choose another scene")
            found += [_shot(scene, files, row, split) for row in range(len(scene))]
    return found


def _shot(scene: Scene, files: ImageFiles, row: int, split: str) -> ConvertedImage:
    cameras, frame = scene.cameras, scene.frame
    focal, center, size = (tuple(values[row].tolist()) for values in (cameras.focal, cameras.center, cameras.size))
    undistortion = None
    if bool(cameras.distortion[row].any()):
        bend = [*focal, *center, *cameras.distortion[row].tolist()]
        lens = pycolmap.Camera(model="OPENCV", width=size[0], height=size[1], params=bend)
        undistortion = colmap.Camera(lens).with_undistortion()
        focal, center, size = undistortion.focal, undistortion.center, undistortion.size
    return ConvertedImage(
        scene,
        files,
        row,
        split,
        frame.poses_to_world(cameras.c2w[row][None])[0].double(),
        focal,
        center,
        size,
        (float(scene.near[row]) * frame.scale, float(scene.far[row]) * frame.scale),
        undistortion,
    )


def _write_images(shots: list[ConvertedImage], images: Path, listing: Path, progress: Progress) -> list[str]:
    """The images, numbered so that their names keep the order, and a list of their splits; returns the names."""
    names = []
    for number, shot in enumerate(shots):
        names.append(f"{number:05d}_{PurePosixPath(shot.scene.names[shot.row]).stem}.jpg")
        shot.write(images / names[-1])
        progress(number + 1, len(shots))
    rows = [
        f"{name}\t{n + 1}\t{shot.split}\tlumifield" for n, (name, shot) in enumerate(zip(names, shots, strict=True))
    ]
    listing.write_text("\n".join(["filename\tid\tsplit\tdataset", *rows]) + "\n", encoding="utf-8")
    return names


def _opengl(shot: ConvertedImage) -> Float[np.ndarray, "4 4"]:
    return np.concatenate([opengl_to_opencv(shot.c2w).numpy(), [[0.0, 0.0, 0.0, 1.0]]])


def _inverse(shot: ConvertedImage) -> Float[np.ndarray, "3 3"]:
    """From (x, y, 1) [pixels] to a direction with OpenGL axes."""
    (fx, fy), (cx, cy) = shot.focal, shot.center
    return np.array([[1 / fx, 0, -cx / fx], [0, -1 / fy, cy / fy], [0, 0, -1]])


def _projection(shot: ConvertedImage) -> Float[np.ndarray, "4 4"]:
    """From the world to pixels whose centers are whole numbers."""
    (fx, fy), (cx, cy), turned = shot.focal, shot.center, shot.c2w[:, :3].T.numpy()
    lens = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    inverse = np.concatenate([turned, -turned @ shot.c2w[:, 3:].numpy()], 1)
    return np.concatenate([lens @ inverse, [[0.0, 0.0, 0.0, 1.0]]])


def _matrix(frame: Frame) -> Float[np.ndarray, "4 4"]:
    """From scene to world coordinates."""
    rows = torch.cat([frame.scale * frame.rotation, frame.translation[:, None]], 1).double().numpy()
    return np.concatenate([rows, [[0.0, 0.0, 0.0, 1.0]]])
