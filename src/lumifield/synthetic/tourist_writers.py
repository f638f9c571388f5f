"""Writers of the tourists' images: Photo Tourism, Cambridge Landmarks and 7-Scenes on disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
from PIL import Image
from scipy.spatial.transform import Rotation

from lumifield.synthetic import Progress, Tourists
from lumifield.synthetic.path_tracer import render_ground_truth
from lumifield.synthetic.scene_description import PackedScene
from lumifield.synthetic.still_life_writers import save
from lumifield.synthetic.tourist_photos import (
    SceneLandmarks,
    TouristPhoto,
    pack_day_and_evening,
    plan_photos,
    render_photo,
    sample_landmarks,
)

SEQUENCES = {"train": 1, "test": 10}


def write_phototourism(settings: Tourists, folder: Path, progress: Progress) -> None:
    """`dense/images`, `dense/sparse` in COLMAP's binary files, and `tourists.tsv`."""
    taken, day = _taken(settings, lambda one: folder / f"dense/images/{one.index:04d}.png", progress)
    (folder / "dense/sparse").mkdir()
    _model(taken, sample_landmarks(day, taken, settings)).write_binary(folder / "dense/sparse")
    rows = [f"{one.index:04d}.png\t{one.index + 1}\t{one.split}\ttourists" for one in taken]
    (folder / "tourists.tsv").write_text("\n".join(["filename\tid\tsplit\tdataset", *rows]) + "\n")


def write_cambridge(settings: Tourists, folder: Path, progress: Progress) -> None:
    """`seq1`, `seq10`, `reconstruction.nvm` with radial distortion, `dataset_train.txt` and `dataset_test.txt`."""
    taken, day = _taken(settings, lambda one: folder / f"{_cambridge_name(one)}.png", progress)
    (folder / "reconstruction.nvm").write_text(_nvm(taken, sample_landmarks(day, taken, settings)))
    for split in SEQUENCES:
        head = ["Visual Landmark Dataset V1", "ImageFile, Camera Position [X Y Z W P Q R]", ""]
        lines = [
            f"{_cambridge_name(one)}.png {_words(one.view.c2w[:, 3])} {_words(_quaternion(one))}"
            for one in taken
            if one.split == split
        ]
        (folder / f"dataset_{split}.txt").write_text("\n".join([*head, *lines]) + "\n")


def write_seven_scenes(settings: Tourists, folder: Path, progress: Progress) -> None:
    """`seq-01`, `seq-10` with poses and depth of the sensor and of the mesh, `TrainSplit.txt` and `TestSplit.txt`."""
    taken, day = _taken(settings, lambda one: folder / f"{_frame(one)}.color.png", progress)
    for split, number in SEQUENCES.items():
        (folder / f"{split.capitalize()}Split.txt").write_text(f"sequence{number}\n")
    for one in taken:
        matrix = np.vstack([one.view.c2w, [0, 0, 0, 1]])
        np.savetxt(folder / f"{_frame(one)}.pose.txt", matrix, fmt="%.17e")
        z = render_ground_truth(day, one.view).depth * (one.view.rays() @ one.view.c2w[:, 2])
        depth = Image.fromarray(np.where(np.isfinite(z), np.rint(1000 * z), 0).astype(np.uint16))
        depth.save(folder / f"{_frame(one)}.depth.png")
        rendered = folder / one.split / "depth" / f"{_frame(one).replace('/', '_')}.pose.depth.tiff"
        rendered.parent.mkdir(parents=True, exist_ok=True)
        depth.save(rendered)


def _taken(
    settings: Tourists, path: Callable[[TouristPhoto], Path], progress: Progress
) -> tuple[list[TouristPhoto], PackedScene]:
    """Takes and saves all images; also the stage by day."""
    everything = plan_photos(settings)
    day, evening = pack_day_and_evening()
    for done, one in enumerate(everything, 1):
        save(path(one), render_photo(day, evening, one, settings))
        progress(done, len(everything))
    return everything, day


def _model(taken: list[TouristPhoto], marks: SceneLandmarks) -> pycolmap.Reconstruction:
    """COLMAP's model of pinhole cameras."""
    model = pycolmap.Reconstruction()
    for one, places in zip(taken, marks.places, strict=True):
        view, number = one.view, one.index + 1
        center = (view.width / 2, view.height / 2)
        lens = pycolmap.Camera(
            model="PINHOLE",
            width=view.width,
            height=view.height,
            params=[view.focal, view.focal, *center],
            camera_id=number,
        )
        model.add_camera_with_trivial_rig(lens)
        turned = view.c2w[:, :3].T
        pose = pycolmap.Rigid3d(np.concatenate([turned, -turned @ view.c2w[:, 3:]], 1))
        keys = pycolmap.Point2DList([pycolmap.Point2D(place) for place in places * view.focal + center])
        image = pycolmap.Image(name=f"{one.index:04d}.png", points2D=keys, camera_id=number, image_id=number)
        model.add_image_with_trivial_frame(image, pose)
    for row, point in enumerate(marks.points):
        found = [
            (one.index + 1, int(at[0]))
            for one, seen in zip(taken, marks.seen, strict=True)
            if len(at := np.flatnonzero(seen == row))
        ]
        model.add_point3D(point, pycolmap.Track([pycolmap.TrackElement(*pair) for pair in found]))
    return model


def _nvm(taken: list[TouristPhoto], marks: SceneLandmarks) -> str:
    """VisualSFM's file; its measurements are relative to the image's middle [pixels]."""
    lines = ["NVM_V3", "", str(len(taken))]
    for one in taken:
        pose = f"{_words(_quaternion(one))} {_words(one.view.c2w[:, 3])}"
        lines.append(f"{_cambridge_name(one)}.jpg\t{one.view.focal!r} {pose} {one.radial!r} 0")
    lines += ["", str(len(marks.points))]
    for row, point in enumerate(marks.points):
        found = []
        for one, seen, places in zip(taken, marks.seen, marks.places, strict=True):
            found += [f"{one.index} {at} {_words(places[at] * one.view.focal)}" for at in np.flatnonzero(seen == row)]
        lines.append(f"{_words(point)} 128 128 128 {len(found)} {' '.join(found)}")
    return "\n".join([*lines, "", "0"]) + "\n"


def _quaternion(one: TouristPhoto) -> np.ndarray:
    """World to camera, w first."""
    return Rotation.from_matrix(one.view.c2w[:, :3].T).as_quat(scalar_first=True)


def _words(numbers: np.ndarray) -> str:
    return " ".join(repr(number) for number in numbers.tolist())


def _cambridge_name(one: TouristPhoto) -> str:
    return f"seq{SEQUENCES[one.split]}/frame{one.index:05d}"


def _frame(one: TouristPhoto) -> str:
    return f"seq-{SEQUENCES[one.split]:02d}/frame-{one.index:06d}"
