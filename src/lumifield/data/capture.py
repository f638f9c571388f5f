"""An opened capture: its format is detected and its metadata parsed once, and any split is read from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lumifield.data import held_out_views
from lumifield.data.image_files import ImageFiles, decode_images
from lumifield.data.scene import Scene
from lumifield.errors import DataError

if TYPE_CHECKING:
    from lumifield.data import Format, Source


@dataclass(frozen=True)
class CaptureFiles:
    """Result of opening a capture in one format.

    `splits` are the available splits; `locate` returns the cameras and image files of one. `split_rule` describes the
    selection of a split `{split}`, if it follows from the content of a file rather than from its name.
    """

    splits: tuple[str, ...]
    locate: Callable[[str], tuple[Scene, ImageFiles]]
    split_rule: str | None = None


@dataclass(frozen=True)
class Capture:
    """A capture of `format`, opened with the options of `source`."""

    source: Source
    format: Format
    files: CaptureFiles

    @property
    def splits(self) -> tuple[str, ...]:
        """Available splits."""
        return self.files.splits

    def read(self, split: str, *, max_images: int | None = None, rows: slice = slice(None)) -> Scene:
        """One split with its images: all of them, those of `rows`, or `max_images` evenly spaced ones.

        Only these images are decoded; those of other splits are not opened.
        """
        scene, files = self.locate_images(split)
        kept = list(range(len(scene)))[rows]
        if max_images is not None and max_images < len(kept):
            kept = [kept[index * len(kept) // max_images] for index in range(max_images)]
        return attach_images(scene, files, kept)

    def cameras(self, split: str) -> Scene:
        """Cameras of one split; only the headers of its images are read."""
        return self.locate_images(split)[0]

    def locate_images(self, split: str) -> tuple[Scene, ImageFiles]:
        """Cameras and image files of one split; only the headers of the images are read."""
        source = self.source
        if split not in self.splits:
            expected = f"one of {', '.join(self.splits)}"
            raise DataError(source.data, "split", repr(split), expected, "choose one of these")
        scene, files = self.files.locate(split)
        if bool((scene.cameras.size < 1).any()):
            expected = f"at most {min(min(size) for size in files.sizes)} for these images"
            raise DataError(source.data, "downscale", str(source.downscale), expected, "lower it")
        if split == "train" and source.pose_noise:
            scene = _perturb_positions(scene, source.pose_noise)
        files = replace(files, cached=source.cache)
        return _apply_bounds(source, scene), files if source.masks is None else _add_masks(source.masks, files)

    def describe_split(self, split: str) -> str:
        """Describes how the images of a split were selected."""
        if self.files.split_rule is not None:
            return self.files.split_rule.format(split=split)
        return held_out_views.describe_split(self.source, self.format, split)


def attach_images(scene: Scene, files: ImageFiles, rows: list[int]) -> Scene:
    """The scene of `locate_images`, reduced to `rows`, with decoded images."""
    if len(rows) < len(scene):
        scene, files = scene.select(rows), files.select(rows)
    return replace(scene, images=decode_images(files, scene.cameras.size))


def _add_masks(folder: Path, files: ImageFiles) -> ImageFiles:
    """Adds the masks of a folder; raises `DataError` if an image has none."""
    masks = tuple(folder / f"{path.stem}.png" for path in files.paths)
    for mask in masks:
        if not mask.is_file():
            expected = "a PNG file for each image, with the same name"
            raise DataError(mask, "mask", "missing", expected, "add it or give another folder")
    return replace(files, masks=masks, masked=True)


def _perturb_positions(scene: Scene, standard_deviation: float) -> Scene:
    """Adds reproducible Gaussian noise to the camera positions."""
    c2w = scene.cameras.c2w.clone()
    c2w[:, :, 3] += standard_deviation * torch.randn(len(scene), 3, generator=torch.Generator().manual_seed(0))
    return replace(scene, cameras=replace(scene.cameras, c2w=c2w))


def _apply_bounds(source: Source, scene: Scene) -> Scene:
    """Overrides near and far."""
    near = scene.near if source.near is None else scene.near * 0 + source.near
    far = scene.far if source.far is None else scene.far * 0 + source.far
    wrong = ((near < 0) | (near >= far)).nonzero()
    if len(wrong):
        row = int(wrong[0, 0])
        found = f"{float(near[row]):g} to {float(far[row]):g} for {scene.names[row]}"
        raise DataError(source.data, "near and far", found, "0 <= near < far", "correct them")
    if source.bounds == "depth" and scene.ndc is not None:
        found, fix = "depth with normalized device coordinates", "remove it"
        raise DataError(source.data, "bounds", found, "distance, because NDC rays run from 0 to 1", fix)
    return replace(scene, near=near, far=far, bounds_are_z_depth=source.bounds == "depth")
