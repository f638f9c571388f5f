"""Hold-outs: which pictures are test pictures where the data does not say."""

from __future__ import annotations

from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from lumifield.data import Source
from lumifield.errors import DataError

EVERY = 8


def splits(source: Source) -> tuple[str, ...]:
    """Train and test, or train alone where nothing is held out."""
    return ("train",) if source.hold_out == "none" else ("train", "test")


def rows(source: Source, split: str, positions: Float[Tensor, "n 3"]) -> list[int]:
    """The indices of the pictures of a split, for cameras at `positions` in the order of the pictures."""
    everything = range(len(positions))
    held = _held(source, positions)
    chosen = [i for i in everything if (i in held) == (split == "test")]
    if not chosen:
        raise DataError(
            source.data, f"{split} split", "empty", f"a picture beside the {len(held)} held out", "set hold_out to none"
        )
    return chosen


def refuse(source: Source, named_in: Path) -> None:
    """Raises `DataError` where a hold-out is asked though the data names its splits."""
    if source.hold_out != "auto":
        raise DataError(
            named_in, "hold_out", repr(source.hold_out), "auto, as this file names the splits", "drop the option"
        )


def _held(source: Source, positions: Float[Tensor, "n 3"]) -> set[int]:
    match source.hold_out:
        case "auto" | "every-8th":
            return set(range(0, len(positions), EVERY))
        case "centre":
            return {int((positions - positions.mean(0)).norm(dim=-1).argmin())}
        case "none":
            return set()
