"""Phototourism scenes of NeRF-W: a COLMAP model in `dense`, and splits in a .tsv file."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from lumifield.data import Source, held_out_views, image_files, sparse_reconstruction, split_listing
from lumifield.data.capture import CaptureFiles
from lumifield.data.readers import colmap
from lumifield.data.scene import Scene
from lumifield.errors import DataError

LAYOUT = "dense/sparse and a .tsv file (Phototourism)"


def matches(folder: Path) -> bool:
    """Whether there is a sparse model and a list."""
    return colmap.matches(folder) and any(folder.glob("*.tsv"))


def open_files(source: Source) -> CaptureFiles:
    """The model, with the splits of the list, or those of a hold-out if there is none."""
    path, taken = split_listing.find_split_listing(source.data), colmap.load_colmap(source.data)
    named = None if path is None else split_listing.read_split_listing(path)
    if path is not None:
        held_out_views.reject_hold_out(source, path)
    extent = cache(lambda: sparse_reconstruction.core_extent(taken))

    def locate(split: str) -> tuple[Scene, image_files.ImageFiles]:
        if path is None or named is None:
            rows = held_out_views.split_rows(source, split, taken.c2w[:, :, 3])
        else:
            _check_files(path, named, taken)
            rows = [row for row, name in enumerate(taken.names) if named.get(name) == split]
        return sparse_reconstruction.scene_from_reconstruction(source, taken, rows, extent())

    listed = None if named is None else set(named.values())
    splits = (
        held_out_views.split_names(source) if listed is None else tuple(s for s in split_listing.SPLITS if s in listed)
    )
    return CaptureFiles(splits, locate)


def _check_files(path: Path, listed: dict[str, str], taken: sparse_reconstruction.Reconstruction) -> None:
    """Raises `DataError` for a listed image that is missing on disk or in the model."""
    where = dict(zip(taken.names, taken.images, strict=True))
    for name in listed:
        if name not in where:
            fix = "empty its split or reconstruct the scene with it"
            raise DataError(path, f"image {name}", "not in the sparse model", "a registered image", fix)
        if not where[name].is_file():
            fix = "restore it or empty its split"
            raise DataError(path, f"image {name}", "missing", f"an image in {where[name].parent}", fix)
