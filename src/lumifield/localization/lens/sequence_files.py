"""Sequence of novel views on disk, in a format that a reader loads as the split `synthesis`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from scipy.spatial.transform import Rotation
from torch import Tensor

from lumifield.data import nvm_model
from lumifield.data.readers import seven_scenes
from lumifield.data.scene import Scene
from lumifield.export.cameras import format_colmap_camera, format_colmap_pose, to_world_cameras
from lumifield.geometry.cameras import Cameras
from lumifield.rendering.render import with_image_size
from lumifield.rendering.view import RenderedView
from lumifield.runtime.files import replacing
from lumifield.runtime.image_io import to_uint8, write_png

HEADER = ("Visual Landmark Dataset V1", "ImageFile, Camera Position [X Y Z W P Q R]", "")
# Larger than the numbers of the published sequences.
SEQUENCE_NUMBER = 99
MILLIMETERS, MAX_DEPTH = 1000, 65534


@runtime_checkable
class Layout(Protocol):
    """File layout of a sequence."""

    @property
    def folder(self) -> str:
        """Image folder, relative to the root."""
        ...

    def name(self, index: int) -> str:
        """Image file of a view, relative to the root."""
        ...

    def with_supported_intrinsics(self, cameras: Cameras) -> Cameras:
        """The cameras with intrinsics that the format can represent."""
        ...

    def save(self, out: Path, scene: Scene, index: int, seen: RenderedView) -> None:
        """Writes the files of one view, the image last."""
        ...

    def write_lists(self, out: Path, scene: Scene) -> None:
        """Writes the files for all views, after each view is complete."""
        ...

    def reader_options(self, scene: Scene) -> str:
        """Options required to read the sequence."""
        ...


@dataclass(frozen=True)
class Cambridge:
    """`seq_synthesis`, `dataset_synthesis.txt`, and the model with the novel cameras added."""

    model: Path
    folder: str = "seq_synthesis"

    def name(self, index: int) -> str:
        """Image file of a view."""
        return f"{self.folder}/synthesis_view_{index:05d}.png"

    def with_supported_intrinsics(self, cameras: Cameras) -> Cameras:
        """Unchanged: VisualSFM stores a focal length per camera."""
        return cameras

    def save(self, out: Path, scene: Scene, index: int, seen: RenderedView) -> None:
        """Writes the image."""
        write_png(out / self.name(index), to_uint8(seen.rgb))

    def write_lists(self, out: Path, scene: Scene) -> None:
        """Writes the list and the model."""
        cameras = to_world_cameras(scene)
        images = [
            nvm_model.NvmImage(self.name(row), float(cameras.focal[row, 0]), cameras.c2w[row].numpy(), 0.0)
            for row in range(len(scene))
        ]
        write_text(out / "reconstruction.nvm", nvm_model.append_images(self.model, self.folder, images))
        lines = [
            f"{image.name} {_format_numbers(image.c2w[:, 3])} {_format_numbers(_quaternion(image.c2w))}"
            for image in images
        ]
        write_text(out / "dataset_synthesis.txt", "\n".join([*HEADER, *lines]) + "\n")

    def reader_options(self, scene: Scene) -> str:
        """None: the model contains everything."""
        return ""


@dataclass(frozen=True)
class SevenScenes:
    """A sequence of frames with poses, color and depth, and `SynthesisSplit.txt`, which names it."""

    folder: str = f"seq-{SEQUENCE_NUMBER:02d}"

    def name(self, index: int) -> str:
        """The image of a view."""
        return f"{self.folder}/frame-{index:06d}.color.png"

    def with_supported_intrinsics(self, cameras: Cameras) -> Cameras:
        """Median intrinsics and size for all views."""
        width, height = cameras.size.median(0).values.tolist()
        uniform = with_image_size(cameras, (width, height))
        return replace(uniform, focal=uniform.focal.median().expand_as(uniform.focal))

    def save(self, out: Path, scene: Scene, index: int, seen: RenderedView) -> None:
        """Writes pose, depth [mm along the axis] and image."""
        image = out / self.name(index)
        stem = image.name.removesuffix(".color.png")
        pose = np.vstack([to_world_cameras(scene.select([index])).c2w[0].numpy(), [0, 0, 0, 1]])
        rows = [" ".join(f"{number:.17e}" for number in row) for row in pose.tolist()]
        write_text(image.with_name(f"{stem}.pose.txt"), "\n".join(rows) + "\n")
        depth = (MILLIMETERS * distance_to_axial_depth(seen.measured_depth, scene.cameras, index)).round().numpy()
        with replacing(image.with_name(f"{stem}.depth.png")) as temporary:
            Image.fromarray(np.where(depth <= MAX_DEPTH, depth, 0).astype(np.uint16)).save(temporary, format="png")
        write_png(image, to_uint8(seen.rgb))

    def write_lists(self, out: Path, scene: Scene) -> None:
        """Writes the list."""
        write_text(out / "SynthesisSplit.txt", f"sequence{SEQUENCE_NUMBER}\n")

    def reader_options(self, scene: Scene) -> str:
        """The focal length, if it differs from the reader's default."""
        focal, width = float(scene.cameras.focal[0, 0]), int(scene.cameras.size[0, 0])
        default = seven_scenes.FOCAL / seven_scenes.WIDTH * width
        return "" if abs(focal - default) < 1e-4 * default else f"--focal {focal:.6g}"


def distance_to_axial_depth(distance: Float[Tensor, "h w"], cameras: Cameras, index: int) -> Float[Tensor, "h w"]:
    """Depth along the optical axis from the distance to the camera."""
    height, width = distance.shape
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return distance / cameras.directions(torch.full_like(x, index, dtype=torch.int64), x, y).norm(dim=-1)


def write_hloc(out: Path, scene: Scene, layout: Layout) -> None:
    """Writes the lists of hloc: names, names with intrinsics (queries), and world-to-camera poses (results)."""
    cameras = to_world_cameras(scene)
    names = [layout.name(index) for index in range(len(scene))]
    with_supported_intrinsics = [f"{name} {format_colmap_camera(cameras[[row]])}" for row, name in enumerate(names)]
    poses = [f"{name} {format_colmap_pose(cameras.c2w[row])}" for row, name in enumerate(names)]
    for file, lines in (("names", names), ("lenses", with_supported_intrinsics), ("poses", poses)):
        write_text(out / "hloc" / f"synthesis_{file}.txt", "\n".join(lines) + "\n")


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _quaternion(c2w: Float[np.ndarray, "3 4"]) -> Float[np.ndarray, "4"]:
    """World to camera, w first."""
    return Rotation.from_matrix(c2w[:, :3].T).as_quat(scalar_first=True)


def _format_numbers(numbers: Float[np.ndarray, " n"]) -> str:
    return " ".join(map(repr, numbers.tolist()))
