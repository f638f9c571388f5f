"""Splits in a .tsv file with columns filename, id and split (NeRF-W)."""

from __future__ import annotations

import csv
from pathlib import Path

from lumifield.errors import DataError

SPLITS = ("train", "val", "test")


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
