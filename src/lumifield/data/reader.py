"""The interface of a reader of one capture format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lumifield.data import Source
    from lumifield.data.image_files import ImageFiles
    from lumifield.data.scene import Scene


@dataclass(frozen=True)
class Reader:
    """`splits` lists the splits of a capture; `cameras` reads one without decoding its images."""

    splits: Callable[[Source], tuple[str, ...]]
    cameras: Callable[[Source, str], tuple[Scene, ImageFiles]]
