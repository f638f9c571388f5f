"""Held-out views if the dataset defines no split."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lumifield.data import OBJECT_FORMATS, Format, Source
from lumifield.errors import DataError

HOLD_OUT_EVERY = 8
# Files that name the images of a split, by layout; {0} is the split, {1} with a capital.
SPLIT_FILES = {
    "blender": "transforms_{0}.json",
    "transforms": "transforms_{0}.json",
    "multicam": "metadata.json",
    "phototourism": "*.tsv",
    "learnit": "*.tsv",
    "cambridge": "dataset_{0}.txt",
    "seven_scenes": "{1}Split.txt",
    **dict.fromkeys(OBJECT_FORMATS, "splits.json"),
}
# What hold_out auto means where it is not every eighth image.
DEFAULT_RULES = {
    "shapenet": "the second half of the frames held out",
    "learnit": "images 0 to 19 are test, 20 to 24 val",
    "seven_scenes": "frames with depth are test where not all have it, else every 8th",
    **dict.fromkeys(OBJECT_FORMATS, "MetaNLR++'s views, with fewer images every 8th"),
}


def split_names(source: Source) -> tuple[str, ...]:
    """Train and test, or only train if nothing is held out."""
    return ("train",) if source.hold_out == "none" else ("train", "test")


def split_rows(source: Source, split: str, positions: Float[Tensor, "n 3"]) -> list[int]:
    """Image indices of a split, for cameras at `positions` in image order."""
    everything = range(len(positions))
    held = _held(source, positions)
    chosen = [i for i in everything if (i in held) == (split == "test")]
    if not chosen:
        raise DataError(
            source.data, f"{split} split", "empty", f"an image besides the {len(held)} held out", "set hold_out to none"
        )
    return chosen


def describe_split(source: Source, layout: Format, split: str) -> str:
    """Describes how the images of a split were selected."""
    pattern = SPLIT_FILES.get(layout, "").format(split, split.title())
    if pattern and (named := sorted(source.data.glob(pattern))):
        return f"the data's own {named[0].name}"
    if source.hold_out == "auto":
        return DEFAULT_RULES.get(layout, "every-8th held out")
    return f"{source.hold_out} held out"


def reject_hold_out(source: Source, named_in: Path) -> None:
    """Raises `DataError` if a hold-out is requested although the dataset defines splits."""
    if source.hold_out != "auto":
        raise DataError(
            named_in, "hold_out", repr(source.hold_out), "auto, because this file lists the splits", "remove the option"
        )


def _held(source: Source, positions: Float[Tensor, "n 3"]) -> set[int]:
    match source.hold_out:
        case "auto" | "every-8th":
            return set(range(0, len(positions), HOLD_OUT_EVERY))
        case "center":
            return {int((positions - positions.mean(0)).norm(dim=-1).argmin())}
        case "none":
            return set()
