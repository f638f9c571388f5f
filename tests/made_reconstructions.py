"""Small scenes in the formats of structure from motion, with points and cameras that are known."""

from pathlib import Path

import numpy as np
import pycolmap
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

import made_scenes as made

# Parameters of every camera model for images of 32 x 24: focal 30 and a little of everything else.
PARAMS = {
    "SIMPLE_PINHOLE": [30.0, 16.2, 11.9],
    "PINHOLE": [30.0, 30.5, 16.2, 11.9],
    "SIMPLE_RADIAL": [30.0, 16.2, 11.9, -0.1],
    "RADIAL": [30.0, 16.2, 11.9, -0.1, 0.02],
    "OPENCV": [30.0, 30.5, 16.2, 11.9, -0.1, 0.02, 0.01, -0.02],
    "OPENCV_FISHEYE": [30.0, 30.5, 16.2, 11.9, 0.05, 0.01, 0.0, 0.0],
    "FULL_OPENCV": [30.0, 30.5, 16.2, 11.9, -0.1, 0.02, 0.01, -0.02, 0.01, 0.05, 0.0, 0.0],
    "FOV": [30.0, 30.5, 16.2, 11.9, 0.8],
    "SIMPLE_RADIAL_FISHEYE": [30.0, 16.2, 11.9, 0.05],
    "RADIAL_FISHEYE": [30.0, 16.2, 11.9, 0.05, 0.01],
    "THIN_PRISM_FISHEYE": [30.0, 30.5, 16.2, 11.9, 0.05, 0.01, 0.01, 0.01, 0.0, 0.0, 0.01, 0.01],
    "RAD_TAN_THIN_PRISM_FISHEYE": [30.0, 30.5, 16.2, 11.9, *[0.01] * 12],
    "SIMPLE_DIVISION": [30.0, 16.2, 11.9, -0.1],
    "DIVISION": [30.0, 30.5, 16.2, 11.9, -0.1],
    "SIMPLE_FISHEYE": [30.0, 16.2, 11.9],
    "FISHEYE": [30.0, 30.5, 16.2, 11.9],
    "EUCM": [30.0, 30.5, 16.2, 11.9, 0.6, 1.1],
}
SIZE = (32, 24)


def cloud(n: int = 60) -> np.ndarray:
    """Points about the origin, the first two on one line of sight of nobody."""
    return np.random.default_rng(0).uniform(-1, 1, (n, 3))


def model(poses: torch.Tensor, points: np.ndarray, camera: str = "PINHOLE", *, tracks: int | None = None):
    """A reconstruction of images 000.png, … with one camera, each seeing all points (or each point `tracks`)."""
    made_model = pycolmap.Reconstruction()
    lens = pycolmap.Camera(model=camera, width=SIZE[0], height=SIZE[1], params=PARAMS[camera], camera_id=7)
    made_model.add_camera_with_trivial_rig(lens)
    for index, pose in enumerate(poses.numpy()):
        turned = pose[:, :3].T
        cam_from_world = pycolmap.Rigid3d(np.concatenate([turned, -turned @ pose[:, 3:]], 1))
        seen = [pycolmap.Point2D(xy) for xy in np.zeros((len(points), 2))]
        image = pycolmap.Image(name=f"{index:03d}.png", points2D=seen, camera_id=7, image_id=100 - index)
        made_model.add_image_with_trivial_frame(image, cam_from_world)
    for number, point in enumerate(points):
        chosen = range(len(poses)) if tracks is None else range(number % len(poses), number % len(poses) + tracks)
        track = pycolmap.Track([pycolmap.TrackElement(100 - i % len(poses), number) for i in chosen])
        made_model.add_point3D(point, track)
    return made_model


def colmap(root: Path, poses: torch.Tensor, *, text: bool = False, place: str = "sparse/0", **kind) -> Path:
    """A COLMAP scene; images are noise."""
    folder = root / place
    folder.mkdir(parents=True)
    written = model(poses, kind.pop("points", cloud()), **kind)
    if text:
        written.write_text(folder)
    else:
        written.write_binary(folder)
    images = root / place.partition("sparse")[0] / "images"
    for index in range(len(poses)):
        made.save(images / f"{index:03d}.png", made.image(index, SIZE, 3))
    return root


def nvm_text(poses: torch.Tensor, points: np.ndarray, *, radial: float = 0.0, names=None, head="NVM_V3 \n\n") -> str:
    """VisualSFM's file: focal length 30, every point measured in every image."""
    lines = [f"{head}{len(poses)}"]
    for index, pose in enumerate(poses.numpy()):
        name = names[index] if names else f"seq1/frame{index:05d}.jpg"
        w, x, y, z = Rotation.from_matrix(pose[:, :3].T).as_quat(scalar_first=True).tolist()
        center = " ".join(f"{value!r}" for value in pose[:, 3].tolist())
        lines.append(f"{name}\t30.0 {w!r} {x!r} {y!r} {z!r} {center} {radial} 0")
    lines += ["", str(len(points))]
    for point in points.tolist():
        measured = " ".join(f"{view} 3 -1.5 2.5" for view in range(len(poses)))
        lines.append(f"{point[0]!r} {point[1]!r} {point[2]!r} 10 20 30 {len(poses)} {measured}")
    return "\n".join([*lines, "", "0"]) + "\n"


def cambridge(root: Path, poses: torch.Tensor, *, test=(2, 5), **kind) -> Path:
    """A Cambridge scene; images are noise, in PNG files."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "reconstruction.nvm").write_text(nvm_text(poses, kind.pop("points", cloud()), **kind))
    for split in ("train", "test"):
        chosen = [i for i in range(len(poses)) if (i in test) == (split == "test")]
        lines = [f"seq1/frame{i:05d}.png 0.5 0.25 -1e-3 1 0 0 0" for i in chosen]
        head = ["Visual Landmark Dataset V1", "ImageFile, Camera Position [X Y Z W P Q R]", ""]
        (root / f"dataset_{split}.txt").write_text("\n".join([*head, *lines]) + "\n")
    for index in range(len(poses)):
        made.save(root / f"seq1/frame{index:05d}.png", made.image(index, SIZE, 3))
    return root


def frames_of(folder: Path, poses: torch.Tensor, *, depth=(), first: int = 0) -> Path:
    """Frames of 7-Scenes with noise as images; those of `depth` see a plane at 2.5 m."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, pose in enumerate(poses):
        name = f"frame-{index + first:06d}"
        made.save(folder / f"{name}.color.png", made.image(index + first, SIZE, 3))
        np.savetxt(folder / f"{name}.pose.txt", np.vstack([pose.numpy(), [0, 0, 0, 1]]), fmt="%.17e")
        if index in depth:
            plane = np.full(SIZE[::-1], 2500, np.uint16)
            plane[:3], plane[3:6] = 0, 65535
            Image.fromarray(plane).save(folder / f"{name}.depth.png")
    return folder


def seven_scenes(root: Path, poses: torch.Tensor, *, train=(1,), test=(10,), depth=()) -> Path:
    """A 7-Scenes scene whose sequences all have the same poses."""
    for split, numbers in (("Train", train), ("Test", test)):
        (root / f"{split}Split.txt").parent.mkdir(parents=True, exist_ok=True)
        (root / f"{split}Split.txt").write_text("\r\n".join(f"sequence{number}" for number in numbers))
        for number in numbers:
            frames_of(root / f"seq-{number:02d}", poses, depth=depth, first=100 * number)
    return root
