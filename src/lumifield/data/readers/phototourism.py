"""Phototourism scenes of NeRF-W: a COLMAP model in `dense`, and splits in a .tsv file."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

from lumifield.data import Source, held_out_views, image_files, sparse_reconstruction
from lumifield.data.capture import CaptureFiles
from lumifield.data.readers import colmap
from lumifield.data.scene import Scene
from lumifield.errors import DataError

SPLITS = ("train", "val", "test")


def open_files(source: Source) -> CaptureFiles:
    """The model, with the splits of the list, or those of a hold-out if there is none."""
    path, taken = find_split_listing(source.data), colmap.load_colmap(source.data)
    named = None if path is None else read_split_listing(path)
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
    splits = held_out_views.split_names(source) if listed is None else tuple(s for s in SPLITS if s in listed)
    return CaptureFiles(splits, locate)


def find_split_listing(folder: Path) -> Path | None:
    """The .tsv file of a scene folder, or None; raises `DataError` for more than one."""
    found = sorted(folder.glob("*.tsv"))
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(folder, "list of splits", f"not one ({names})", "a single .tsv file", "remove all others")
    return found[0] if found else None


def read_split_listing(path: Path) -> dict[str, str]:
    """Split of each image that has an id and a split; raises `DataError` for an invalid file."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t")
        columns = rows.fieldnames or ()
        for column in ("filename", "id", "split"):
            if column not in columns:
                expected = "columns filename, id and split, separated by tabs"
                raise DataError(path, f"column {column}", "missing", expected, "add it or remove the file")
        found = {row["filename"]: row["split"] for row in rows if row["id"] and row["split"] in SPLITS}
    if "train" not in found.values():
        fix = "name the training images or remove the file"
        raise DataError(path, "column split", "without train", "train, val or test for each image", fix)
    return found


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
