"""Multiscale scenes of mip-NeRF: `metadata.json` with columns of image properties per split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lumifield.data import Source, held_out_views, image_files, transforms_file
from lumifield.data.capture import CaptureFiles
from lumifield.data.readers.blender import HALF_EXTENT
from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import opengl_to_opencv, validate_number, validate_pose

LAYOUT = "metadata.json (multicam)"

COLUMNS = ("file_path", "cam2world", "pix2cam", "width", "height", "near", "far", "lossmult")
Row = dict[str, Any]


def matches(folder: Path) -> bool:
    """Whether there is a file for all splits."""
    return (folder / "metadata.json").is_file()


def open_files(source: Source) -> CaptureFiles:
    """Splits that the file has columns for."""
    path, content = _metadata(source)
    held_out_views.reject_hold_out(source, path)
    splits = tuple(split for split in transforms_file.SPLITS if split in content)
    return CaptureFiles(splits, lambda split: _scene(source, split, path, content))


def _scene(source: Source, split: str, path: Path, content: dict[str, Any]) -> tuple[Scene, image_files.ImageFiles]:
    kept = transforms_file.existing_frames(path, _rows(path, split, content[split]))
    rows = [row for row, _ in kept]
    files = image_files.read_headers([image for _, image in kept])
    poses = torch.stack([validate_pose(row["cam2world"], path, f"cam2world of {row['file_path']}") for row in rows])
    lenses = torch.tensor([_lens(path, row, size) for row, size in zip(rows, files.sizes, strict=True)])
    near, far, weight = (_numbers(path, rows, column) for column in ("near", "far", "lossmult"))
    scene = Scene(
        cameras=Cameras(
            c2w=opengl_to_opencv(poses).float(),
            focal=lenses[:, :2],
            center=lenses[:, 2:],
            size=torch.tensor(files.sizes),
            distortion=torch.zeros(len(rows), 4),
        ).resized(1 / source.downscale),
        names=tuple(row["file_path"].removeprefix("./") for row in rows),
        near=near,
        far=far,
        box=torch.tensor([[-HALF_EXTENT] * 3, [HALF_EXTENT] * 3]),
        frame=Frame.identity(),
        background=image_files.resolve_background(files, source.background),
        loss_weight=None if bool((weight == 1).all()) else weight,
    )
    return scene, files


def _metadata(source: Source) -> tuple[Path, dict[str, Any]]:
    path = source.data / "metadata.json"
    content = transforms_file.load_json(path)
    if not isinstance(content, dict) or not any(split in content for split in transforms_file.SPLITS):
        expected, fix = "columns for train, val or test", "write the file again"
        raise DataError(path, "every split", "missing", expected, fix)
    return path, content


def _rows(path: Path, split: str, columns: Any) -> list[Row]:
    """One row per image from the columns of a split; raises `DataError` if their lengths differ."""
    fix = "write the file again"
    columns = columns if isinstance(columns, dict) else {}
    for name in COLUMNS:
        if not isinstance(columns.get(name), list):
            raise DataError(path, f"{split}.{name}", "missing or no list", "a column of values", fix)
    count = len(columns["file_path"])
    for name in COLUMNS:
        if len(columns[name]) != count:
            found, expected = f"{len(columns[name])} values long", f"{count} as file_path"
            raise DataError(path, f"{split}.{name}", found, expected, fix)
    if count == 0:
        fix = "list the images of this split"
        raise DataError(path, f"{split}.file_path", "empty", "at least one image", fix)
    for index, name in enumerate(columns["file_path"]):
        if not isinstance(name, str):
            raise DataError(path, f"{split}.file_path[{index}]", repr(name), "a file name", "name the image")
    return [{name: columns[name][index] for name in COLUMNS} for index in range(count)]


def _lens(path: Path, row: Row, size: tuple[int, int]) -> list[float]:
    """`fx fy cx cy` of an image of `size` (width, height) from `pix2cam`, its inverse intrinsics with OpenGL axes."""
    where = row["file_path"]
    for column, found in zip(("width", "height"), size, strict=True):
        stated = validate_number(row[column], path, f"{column} of {where}", positive=True)
        if round(stated) != found:
            fix = "give the size of the images"
            raise DataError(path, f"{column} of {where}", f"{stated:g}", f"the image's {found}", fix)
    return transforms_file.pinhole_intrinsics(path, f"pix2cam of {where}", row["pix2cam"])


def _numbers(path: Path, rows: list[Row], column: str) -> torch.Tensor:
    return torch.tensor(
        [validate_number(row[column], path, f"{column} of {row['file_path']}", positive=True) for row in rows]
    )
