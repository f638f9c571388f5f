"""Conversion of a scene to the format of learnit, COLMAP or DTU, with pinhole cameras."""

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
from lumifield.data.capture import attach_images
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

# Order of the images, because learnit splits by position.
ORDER = ("test", "val", "train")
JPEG = (".jpg", ".jpeg", ".JPG", ".JPEG")
QUALITY = 95


@dataclass(frozen=True)
class ConvertedImage:
    """An image of a scene and its pinhole camera in world coordinates.

    `bounds` are its near and far distance [world units].
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
        """Writes the image as JPEG; an unmodified JPEG file is copied."""
        path.parent.mkdir(parents=True, exist_ok=True)
        original = self.files.paths[self.row]
        if self.undistortion is None and self.files.undistortion[self.row] is None and original.suffix in JPEG:
            shutil.copyfile(original, path)
            return
        pixels = to_uint8(attach_images(self.scene, self.files, [self.row]).ground_truth(0)).numpy()
        Image.fromarray(self._resampled(pixels)).save(path, quality=QUALITY, subsampling=0)

    def pixels(self) -> UInt8[np.ndarray, "h w c"]:
        """Pixels of the image, with alpha if it has any."""
        image_scene = attach_images(self.scene, self.files, [self.row])
        assert image_scene.images is not None
        return self._resampled(image_scene.images.image(0, image_scene.size(0)).numpy())

    def _resampled(self, pixels: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "rows columns c"]:
        return pixels if self.undistortion is None else self.undistortion.apply(pixels)


def convert(source: Source, out: Path, layout: Literal["learnit", "colmap", "dtu"], progress: Progress) -> None:
    """Writes images, metadata and splits in another format, in the order test, val, train.

    Raises `DataError` if the scene has no bounds in world coordinates, or if `out` is not empty or not writable.
    """
    converted = _list_images(source)
    with fresh_folder(out) as folder:
        if layout == "dtu":
            _write_object(converted, folder, progress)
            return
        images = folder / ("images" if layout == "learnit" else "dense/images")
        names = _write_images(converted, images, folder / "splits.tsv", progress)
        if layout == "learnit":
            _write_arrays(converted, folder)
        else:
            _write_model(converted, names, folder / "dense/sparse")


def _write_arrays(converted: list[ConvertedImage], folder: Path) -> None:
    np.save(folder / "c2w_mats.npy", np.stack([_opengl(image) for image in converted]))
    np.save(folder / "kinv_mats.npy", np.stack([_inverse_intrinsics(image) for image in converted]))
    # Readers multiply the bounds by these factors.
    np.save(folder / "bds.npy", np.array([image.bounds for image in converted]) / (learnit.NEAR, learnit.FAR))
    np.save(folder / "res_mats.npy", np.array([image.size[::-1] for image in converted]))


def _write_model(converted: list[ConvertedImage], names: list[str], folder: Path) -> None:
    """COLMAP binary model without points."""
    model = pycolmap.Reconstruction()
    for number, (image, name) in enumerate(zip(converted, names, strict=True), 1):
        (width, height), params = image.size, [*image.focal, *image.center]
        lens = pycolmap.Camera(model="PINHOLE", width=width, height=height, params=params, camera_id=number)
        model.add_camera_with_trivial_rig(lens)
        rotation, position = image.c2w[:, :3].T.numpy(), image.c2w[:, 3:].numpy()
        pose = pycolmap.Rigid3d(np.concatenate([rotation, -rotation @ position], 1))
        model.add_image_with_trivial_frame(pycolmap.Image(name=name, camera_id=number, image_id=number), pose)
    folder.mkdir()
    model.write_binary(folder)


def _write_object(converted: list[ConvertedImage], folder: Path, progress: Progress) -> None:
    """DTU format: images and masks as PNG, camera and sphere matrices, and `splits.json`."""
    matrices, listed = {}, {split: [] for split in ORDER}
    for number, image in enumerate(converted):
        name, pixels = f"{number:05d}_{PurePosixPath(image.scene.names[image.row]).stem}", image.pixels()
        listed[image.split].append(name)
        save_png(folder / f"image/{name}.png", pixels[..., :3])
        if image.files.alpha:
            save_png(folder / f"mask/{name}.png", pixels[..., 3])
        matrices[f"world_mat_{number}"] = _projection(image)
        # With an object mask the scene frame is that of the sphere; otherwise the reader computes it.
        if image.scene.has_object_mask:
            matrices[f"scale_mat_{number}"] = _matrix(image.scene.frame)
        progress(number + 1, len(converted))
    np.savez(folder / "cameras_sphere.npz", **matrices)
    (folder / "splits.json").write_text(json.dumps(listed, indent=1), encoding="utf-8")


def _list_images(source: Source) -> list[ConvertedImage]:
    capture = data.open_capture(source)
    found = []
    for split in ORDER:
        if split in capture.splits:
            scene, files = capture.locate_images(split)
            if scene.ndc is not None:
                expected = "bounds in world coordinates"
                raise DataError(source.data, "layout", "forward (normalized device)", expected, "choose another scene")
            found += [_convert_image(scene, files, row, split) for row in range(len(scene))]
    return found


def _convert_image(scene: Scene, files: ImageFiles, row: int, split: str) -> ConvertedImage:
    cameras, frame = scene.cameras, scene.frame
    focal, center, size = (tuple(values[row].tolist()) for values in (cameras.focal, cameras.center, cameras.size))
    undistortion = None
    if bool(cameras.distortion[row].any()):
        params = [*focal, *center, *cameras.distortion[row].tolist()]
        lens = pycolmap.Camera(model="OPENCV", width=size[0], height=size[1], params=params)
        undistortion = colmap.ColmapCamera(lens).with_undistortion()
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


def _write_images(converted: list[ConvertedImage], images: Path, listing: Path, progress: Progress) -> list[str]:
    """Writes numbered images and a list of their splits; returns the names."""
    names = []
    for number, image in enumerate(converted):
        names.append(f"{number:05d}_{PurePosixPath(image.scene.names[image.row]).stem}.jpg")
        image.write(images / names[-1])
        progress(number + 1, len(converted))
    rows = [
        f"{name}\t{n + 1}\t{image.split}\tlumifield"
        for n, (name, image) in enumerate(zip(names, converted, strict=True))
    ]
    listing.write_text("\n".join(["filename\tid\tsplit\tdataset", *rows]) + "\n", encoding="utf-8")
    return names


def _opengl(image: ConvertedImage) -> Float[np.ndarray, "4 4"]:
    return np.concatenate([opengl_to_opencv(image.c2w).numpy(), [[0.0, 0.0, 0.0, 1.0]]])


def _inverse_intrinsics(image: ConvertedImage) -> Float[np.ndarray, "3 3"]:
    """Maps (x, y, 1) [pixels] to directions with OpenGL axes."""
    (fx, fy), (cx, cy) = image.focal, image.center
    return np.array([[1 / fx, 0, -cx / fx], [0, -1 / fy, cy / fy], [0, 0, -1]])


def _projection(image: ConvertedImage) -> Float[np.ndarray, "4 4"]:
    """World-to-image matrix for pixel centers at integers."""
    (fx, fy), (cx, cy), rotation = image.focal, image.center, image.c2w[:, :3].T.numpy()
    lens = np.array([[fx, 0, cx - 0.5], [0, fy, cy - 0.5], [0, 0, 1]])
    inverse = np.concatenate([rotation, -rotation @ image.c2w[:, 3:].numpy()], 1)
    return np.concatenate([lens @ inverse, [[0.0, 0.0, 0.0, 1.0]]])


def _matrix(frame: Frame) -> Float[np.ndarray, "4 4"]:
    """Scene-to-world matrix."""
    rows = torch.cat([frame.scale * frame.rotation, frame.translation[:, None]], 1).double().numpy()
    return np.concatenate([rows, [[0.0, 0.0, 0.0, 1.0]]])
