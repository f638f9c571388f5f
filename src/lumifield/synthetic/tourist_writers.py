"""Writers of the tourist photos in the formats of Photo Tourism, Cambridge Landmarks and 7-Scenes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Float
from PIL import Image
from scipy.spatial.transform import Rotation

from lumifield.synthetic import Progress, Tourists
from lumifield.synthetic.path_tracer import render_ground_truth
from lumifield.synthetic.png_files import save_png
from lumifield.synthetic.scene_description import PackedScene
from lumifield.synthetic.tourist_photos import (
    SceneLandmarks,
    TouristPhoto,
    pack_day_and_evening,
    plan_photos,
    render_photo,
    sample_landmarks,
)

# Sequence number of each split, as Cambridge Landmarks and 7-Scenes name their folders.
SEQUENCES = {"train": 1, "test": 10}


def write_phototourism(settings: Tourists, folder: Path, progress: Progress) -> None:
    """Writes `dense/images`, a binary COLMAP model in `dense/sparse`, and `tourists.tsv`."""
    photos, day = _write_photos(settings, lambda photo: folder / f"dense/images/{photo.index:04d}.png", progress)
    (folder / "dense/sparse").mkdir()
    _build_colmap_model(photos, sample_landmarks(day, photos, settings)).write_binary(folder / "dense/sparse")
    rows = [f"{photo.index:04d}.png\t{photo.index + 1}\t{photo.split}\ttourists" for photo in photos]
    (folder / "tourists.tsv").write_text("\n".join(["filename\tid\tsplit\tdataset", *rows]) + "\n")


def write_cambridge(settings: Tourists, folder: Path, progress: Progress) -> None:
    """Writes `seq1`, `seq10`, `reconstruction.nvm` with radial distortion, and `dataset_SPLIT.txt`."""
    photos, day = _write_photos(settings, lambda photo: folder / f"{_cambridge_name(photo)}.png", progress)
    (folder / "reconstruction.nvm").write_text(_format_nvm(photos, sample_landmarks(day, photos, settings)))
    for split in SEQUENCES:
        header = ["Visual Landmark Dataset V1", "ImageFile, Camera Position [X Y Z W P Q R]", ""]
        lines = [
            f"{_cambridge_name(photo)}.png {_join(photo.view.c2w[:, 3])} {_join(_world_to_camera_quaternion(photo))}"
            for photo in photos
            if photo.split == split
        ]
        (folder / f"dataset_{split}.txt").write_text("\n".join([*header, *lines]) + "\n")


def write_seven_scenes(settings: Tourists, folder: Path, progress: Progress) -> None:
    """Writes `seq-01` and `seq-10` with poses and depth, rendered depth, `TrainSplit.txt` and `TestSplit.txt`."""
    photos, day = _write_photos(settings, lambda photo: folder / f"{_seven_scenes_name(photo)}.color.png", progress)
    for split, number in SEQUENCES.items():
        (folder / f"{split.capitalize()}Split.txt").write_text(f"sequence{number}\n")
    for photo in photos:
        name, view = _seven_scenes_name(photo), photo.view
        np.savetxt(folder / f"{name}.pose.txt", np.vstack([view.c2w, [0, 0, 0, 1]]), fmt="%.17e")
        z = render_ground_truth(day, view).depth * (view.ray_directions() @ view.c2w[:, 2])
        depth = Image.fromarray(np.where(np.isfinite(z), np.rint(1000 * z), 0).astype(np.uint16))
        depth.save(folder / f"{name}.depth.png")
        rendered_depth = folder / photo.split / "depth" / f"{name.replace('/', '_')}.pose.depth.tiff"
        rendered_depth.parent.mkdir(parents=True, exist_ok=True)
        depth.save(rendered_depth)


def _write_photos(
    settings: Tourists, path: Callable[[TouristPhoto], Path], progress: Progress
) -> tuple[list[TouristPhoto], PackedScene]:
    """Renders and writes all photos; also returns the packed scene by day."""
    photos = plan_photos(settings)
    day, evening = pack_day_and_evening()
    for done, photo in enumerate(photos, 1):
        save_png(path(photo), render_photo(day, evening, photo, settings))
        progress(done, len(photos))
    return photos, day


def _build_colmap_model(photos: list[TouristPhoto], landmarks: SceneLandmarks) -> pycolmap.Reconstruction:
    """The COLMAP model with one PINHOLE camera per photo."""
    model = pycolmap.Reconstruction()
    for photo, projections in zip(photos, landmarks.projections, strict=True):
        view, image_id = photo.view, photo.index + 1
        center = (view.width / 2, view.height / 2)
        camera = pycolmap.Camera(
            model="PINHOLE",
            width=view.width,
            height=view.height,
            params=[view.focal, view.focal, *center],
            camera_id=image_id,
        )
        model.add_camera_with_trivial_rig(camera)
        rotation = view.c2w[:, :3].T
        world_to_camera = pycolmap.Rigid3d(np.concatenate([rotation, -rotation @ view.c2w[:, 3:]], 1))
        points = pycolmap.Point2DList([pycolmap.Point2D(point) for point in projections * view.focal + center])
        image = pycolmap.Image(name=f"{photo.index:04d}.png", points2D=points, camera_id=image_id, image_id=image_id)
        model.add_image_with_trivial_frame(image, world_to_camera)
    for row, point in enumerate(landmarks.points):
        elements = [
            pycolmap.TrackElement(photo.index + 1, int(matches[0]))
            for photo, visible_rows in zip(photos, landmarks.visible_rows, strict=True)
            if len(matches := np.flatnonzero(visible_rows == row))
        ]
        model.add_point3D(point, pycolmap.Track(elements))
    return model


def _format_nvm(photos: list[TouristPhoto], landmarks: SceneLandmarks) -> str:
    """The VisualSFM file; its measurements are relative to the image center [pixels]."""
    lines = ["NVM_V3", "", str(len(photos))]
    for photo in photos:
        pose = f"{_join(_world_to_camera_quaternion(photo))} {_join(photo.view.c2w[:, 3])}"
        lines.append(f"{_cambridge_name(photo)}.jpg\t{photo.view.focal!r} {pose} {photo.radial_distortion!r} 0")
    lines += ["", str(len(landmarks.points))]
    for row, point in enumerate(landmarks.points):
        measurements = []
        for photo, rows, projections in zip(photos, landmarks.visible_rows, landmarks.projections, strict=True):
            measurements += [
                f"{photo.index} {match} {_join(projections[match] * photo.view.focal)}"
                for match in np.flatnonzero(rows == row)
            ]
        lines.append(f"{_join(point)} 128 128 128 {len(measurements)} {' '.join(measurements)}")
    return "\n".join([*lines, "", "0"]) + "\n"


def _world_to_camera_quaternion(photo: TouristPhoto) -> Float[np.ndarray, "4"]:
    """The rotation from world to camera as (w, x, y, z)."""
    return Rotation.from_matrix(photo.view.c2w[:, :3].T).as_quat(scalar_first=True)


def _join(numbers: np.ndarray) -> str:
    return " ".join(repr(number) for number in numbers.tolist())


def _cambridge_name(photo: TouristPhoto) -> str:
    return f"seq{SEQUENCES[photo.split]}/frame{photo.index:05d}"


def _seven_scenes_name(photo: TouristPhoto) -> str:
    return f"seq-{SEQUENCES[photo.split]:02d}/frame-{photo.index:06d}"
