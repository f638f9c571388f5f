"""VisualSFM models: `NVM_V3` files with cameras, points and their measurements."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from lumifield.errors import DataError

# A name, quoted if it contains spaces, and the numbers after it.
NAMED = re.compile(r'(?:"([^"]*)"|(\S+))\s+(.*)')


@dataclass(frozen=True)
class NvmImage:
    """An image: its name, focal length [pixels], pose, and radial distortion on the side of the measurement."""

    name: str
    focal: float
    c2w: Float[np.ndarray, "3 4"]
    radial: float


@dataclass(frozen=True)
class NvmModel:
    """Images, points, and the rows of the points that each image observes."""

    path: Path
    images: tuple[NvmImage, ...]
    points: Float[np.ndarray, "p 3"]
    seen: tuple[Int[np.ndarray, " _"], ...]


class _Lines:
    """Sequential non-empty lines of a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            found = "missing" if isinstance(error, FileNotFoundError) else f"unreadable ({error.strerror})"
            raise DataError(path, "file", found, "the model of a Cambridge scene", "restore it") from None
        self.rest = iter([(i, line) for i, line in enumerate(text.splitlines(), 1) if line.strip()])
        self.number = 0

    def next(self) -> str:
        """The next line; raises `DataError` at the end."""
        self.number, line = next(self.rest, (0, ""))
        if not line:
            raise DataError(self.path, "file", "cut off", "as many cameras and points as it states", "copy it again")
        return line

    def wrong(self, expected: str) -> DataError:
        """The error for the current line."""
        return DataError(self.path, f"line {self.number}", "of another form", expected, "write the file again")

    def count(self, what: str) -> int:
        """The next line as a count."""
        line = self.next().strip()
        if not line.isdecimal():
            raise self.wrong(f"the number of {what}")
        return int(line)


def load_nvm(path: Path) -> NvmModel:
    """The first model of the file; raises `DataError` if it is unreadable."""
    lines = _Lines(path)
    if not lines.next().startswith("NVM_V3"):
        raise lines.wrong("NVM_V3")
    images = tuple(_image(lines) for _ in range(lines.count("images")))
    points, seen = [], [[] for _ in images]
    for row in range(lines.count("points")):
        point, views = _point(lines, len(images))
        points.append(point)
        for view in views:
            seen[view].append(row)
    return NvmModel(
        path, images, np.array(points, float).reshape(-1, 3), tuple(np.array(rows, np.int64) for rows in seen)
    )


def append_images(path: Path, folder: str, images: Sequence[NvmImage]) -> str:
    """Text of a model in which `images` replace the images of `folder`, appended after all others.

    They observe no points, so that the indices in the measurements stay valid.
    """
    lines = _Lines(path)
    lines.next()
    number = lines.count("images")
    counted, own = lines.number, []
    for _ in range(number):
        if not _image(lines).name.startswith(f"{folder}/"):
            own.append(lines.number)
    text = path.read_text(encoding="utf-8", errors="replace").splitlines()
    kept = [text[row - 1] for row in own]
    head = [*text[: counted - 1], str(len(kept) + len(images))]
    return "\n".join([*head, *kept, *map(_line, images), *text[lines.number :]]) + "\n"


def _line(image: NvmImage) -> str:
    rotation = Rotation.from_matrix(image.c2w[:, :3].T).as_quat(scalar_first=True)
    numbers = [image.focal, *rotation.tolist(), *image.c2w[:, 3].tolist(), image.radial]
    return f"{image.name}\t{' '.join(map(repr, numbers))} 0"


def _image(lines: _Lines) -> NvmImage:
    match = NAMED.fullmatch(lines.next().strip())
    numbers = _numbers(lines, match[3].split(), "name and 10 numbers") if match else np.zeros(0)
    if match is None or len(numbers) != 10 or numbers[0] <= 0 or np.linalg.norm(numbers[1:5]) < 1e-3:
        raise lines.wrong("a name, focal length, quaternion, center, radial distortion and 0")
    rotation = Rotation.from_quat(numbers[1:5], scalar_first=True).as_matrix().T
    focal, radial = float(numbers[0]), float(numbers[8])
    return NvmImage(match[1] or match[2], focal, np.column_stack([rotation, numbers[5:8]]), radial)


def _point(lines: _Lines, images: int) -> tuple[list[float], set[int]]:
    """A point and the images that observe it."""
    expected = "x y z, r g b, the number of measurements, and four numbers for each"
    words = lines.next().split()
    numbers = _numbers(lines, words, expected)
    if len(numbers) < 7 or len(numbers) != 7 + 4 * numbers[6]:
        raise lines.wrong(expected)
    views = {int(view) for view in numbers[7::4]}
    if views and not 0 <= min(views) <= max(views) < images:
        raise lines.wrong(f"measurements in images 0 to {images - 1}")
    return numbers[:3].tolist(), views


def _numbers(lines: _Lines, words: list[str], expected: str) -> Float[np.ndarray, " _"]:
    try:
        numbers = np.array(words, np.float64)
    except ValueError:
        raise lines.wrong(expected) from None
    if not np.isfinite(numbers).all():
        raise lines.wrong("finite numbers")
    return numbers
