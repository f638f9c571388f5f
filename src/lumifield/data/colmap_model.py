"""COLMAP sparse models: `cameras`, `images` and `points3D`, binary or text."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation

from lumifield.errors import DataError

NO_POINT = -1


@dataclass(frozen=True)
class ColmapImage:
    """A registered image: world-to-camera quaternion (w first) and translation, and ids of its 3D points."""

    name: str
    camera: int
    quaternion: tuple[float, ...]
    translation: tuple[float, ...]
    points: Int[np.ndarray, " k"]

    def c2w(self, path: Path) -> Float[np.ndarray, "3 4"]:
        """Camera-to-world matrix; raises `DataError` for `path` if the rotation is invalid."""
        length = np.linalg.norm(self.quaternion)
        if not (np.isfinite(length) and length > 1e-3 and np.isfinite(self.translation).all()):
            fix = "correct or remove this image"
            raise DataError(path, f"pose of {self.name}", "no rotation and translation", "finite numbers", fix)
        turned = Rotation.from_quat(self.quaternion, scalar_first=True).as_matrix().T
        return np.concatenate([turned, -turned @ np.array(self.translation)[:, None]], 1)


@dataclass(frozen=True)
class ColmapModel:
    """A sparse model: cameras by id, images sorted by name, points by id."""

    images: Path
    cameras: dict[int, pycolmap.Camera]
    shots: tuple[ColmapImage, ...]
    point_ids: Int[np.ndarray, " p"]
    points: Float[np.ndarray, "p 3"]


def is_model(folder: Path) -> bool:
    """Whether a folder contains a sparse model."""
    return any((folder / f"cameras{extension}").is_file() for extension in (".bin", ".txt"))


def load_colmap_model(folder: Path) -> ColmapModel:
    """The model in a folder, binary rather than text; raises `DataError` for an unreadable file."""
    binary = (folder / "cameras.bin").is_file()
    cameras, images, points = (folder / f"{n}{'.bin' if binary else '.txt'}" for n in ("cameras", "images", "points3D"))
    known = _binary_cameras(_Cursor(cameras)) if binary else _text_cameras(cameras)
    shots = _binary_shots(_Cursor(images)) if binary else _text_shots(images)
    ids, xyz = _binary_points(_Cursor(points)) if binary else _text_points(points)
    if not shots:
        raise DataError(images, "list of images", "empty", "registered images", "reconstruct the scene again")
    for shot in shots:
        if shot.camera not in known:
            found, expected = f"{shot.camera}, missing in {cameras.name}", f"a camera of {cameras.name}"
            raise DataError(images, f"camera of {shot.name}", found, expected, "write both files again")
    return ColmapModel(images, known, tuple(sorted(shots, key=lambda shot: shot.name)), ids, xyz)


class _Cursor:
    """Sequential little-endian records of a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.at, self.data = path, 0, _content(path)

    def take(self, form: str) -> tuple:
        """The next values in a format of `struct`."""
        return struct.unpack("<" + form, self.bytes(struct.calcsize("<" + form)))

    def bytes(self, count: int) -> bytes:
        """The next bytes."""
        if count > len(self.data) - self.at:
            raise DataError(self.path, "file", f"cut off at byte {len(self.data)}", "more", "copy the file again")
        self.at += count
        return self.data[self.at - count : self.at]

    def word(self) -> str:
        """The characters before the next zero byte."""
        end = self.data.find(b"\0", self.at)
        word = self.bytes((end if end >= 0 else len(self.data)) + 1 - self.at)
        return word[:-1].decode("utf-8", "replace")


def _binary_cameras(cursor: _Cursor) -> dict[int, pycolmap.Camera]:
    models = {int(model): (name, model) for name, model in pycolmap.CameraModelId.__members__.items()}
    cameras = {}
    for _ in range(cursor.take("Q")[0]):
        number, kind, width, height = cursor.take("IiQQ")
        name, model = models.get(kind, (str(kind), None))
        params = cursor.take(f"{_parameters(model)}d") if model else ()
        cameras[number] = _camera(cursor.path, name, (width, height), params)
    return cameras


def _binary_shots(cursor: _Cursor) -> list[ColmapImage]:
    shots = []
    for _ in range(cursor.take("Q")[0]):
        _, *pose, camera = cursor.take("I7dI")
        name = cursor.word()
        count = cursor.take("Q")[0]
        seen = np.frombuffer(cursor.bytes(24 * count), np.dtype([("xy", "<f8", 2), ("point", "<i8")]))["point"]
        shots.append(ColmapImage(name, camera, tuple(pose[:4]), tuple(pose[4:]), seen[seen != NO_POINT]))
    return shots


def _binary_points(cursor: _Cursor) -> tuple[Int[np.ndarray, " p"], Float[np.ndarray, "p 3"]]:
    ids, points = [], []
    for _ in range(cursor.take("Q")[0]):
        number, x, y, z, *_, track = cursor.take("Q3d3BdQ")
        cursor.bytes(8 * track)
        ids.append(number)
        points.append((x, y, z))
    return np.array(ids, np.int64), np.array(points, np.float64).reshape(-1, 3)


def _text_cameras(path: Path) -> dict[int, pycolmap.Camera]:
    cameras = {}
    for number, line in _lines(path):
        with _columns(path, number):
            words = line.split()
            size = (int(words[2]), int(words[3]))
            cameras[int(words[0])] = _camera(path, words[1], size, [float(word) for word in words[4:]])
    return cameras


def _text_shots(path: Path) -> list[ColmapImage]:
    shots = []
    lines = _lines(path, blank=True)
    for number, line in lines:
        if not line.strip():
            continue
        _, seen = next(lines, (0, ""))
        with _columns(path, number):
            words = line.split(maxsplit=9)
            pose = tuple(float(word) for word in words[1:8])
            points = np.array([int(word) for word in seen.split()[2::3]], np.int64)
            name = words[9].strip()
            shots.append(ColmapImage(name, int(words[8]), pose[:4], pose[4:], points[points != NO_POINT]))
    return shots


def _text_points(path: Path) -> tuple[Int[np.ndarray, " p"], Float[np.ndarray, "p 3"]]:
    ids, points = [], []
    for number, line in _lines(path):
        with _columns(path, number):
            words = line.split(maxsplit=4)
            ids.append(int(words[0]))
            points.append((float(words[1]), float(words[2]), float(words[3])))
    return np.array(ids, np.int64), np.array(points, np.float64).reshape(-1, 3)


def _lines(path: Path, *, blank: bool = False) -> Iterator[tuple[int, str]]:
    """Lines without comments, and without empty ones unless `blank`, numbered from 1."""
    text = _content(path).decode("utf-8", "replace")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("#") and (blank or line.strip()):
            yield number, line


@contextmanager
def _columns(path: Path, line: int) -> Iterator[None]:
    """Converts errors while parsing a line to `DataError`."""
    try:
        yield
    except (ValueError, IndexError):
        raise DataError(
            path, f"line {line}", "incomplete or no numbers", "the columns of COLMAP", "write the model again"
        ) from None


def _camera(path: Path, name: str, size: tuple[int, int], params: Sequence[float]) -> pycolmap.Camera:
    model = pycolmap.CameraModelId.__members__.get(name, pycolmap.CameraModelId.INVALID)
    if model == pycolmap.CameraModelId.INVALID:
        known = ", ".join(sorted(set(pycolmap.CameraModelId.__members__) - {"INVALID"}))
        raise DataError(path, "camera model", name, f"one of {known}", "undistort the images with COLMAP first")
    expected = _parameters(model)
    if len(params) != expected or not np.isfinite(params).all() or min(size) < 1:
        found = f"{len(params)} numbers for {size[0]}x{size[1]} pixels"
        raise DataError(path, f"{name} camera", found, f"{expected} finite numbers and a size", "write the model again")
    return pycolmap.Camera(model=model, width=size[0], height=size[1], params=list(params))


def _parameters(model: pycolmap.CameraModelId) -> int:
    return len(pycolmap.Camera.create_from_model_id(0, model, 1.0, 1, 1).params)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        found = "missing" if isinstance(error, FileNotFoundError) else f"unreadable ({error.strerror})"
        raise DataError(path, "file", found, "a file of a COLMAP sparse model", "restore it") from None
