"""Writers of the still life in the Blender, multicam and LLFF formats, with ground truth in `ground_truth/`.

Files in `ground_truth/` are named after the images: `NAME_depth.npy` (float32 distance along the unit ray through each
pixel center, infinite for the background), `NAME_normal.npy` (float32 world normals, zero for the background) and
`NAME_mask.png` (item number, 0 for the background). `items.json` lists the names of the items from 1 on, and `mesh.ply`
holds their surfaces.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from lumifield.synthetic import Progress, StillLife, camera_placement, still_life
from lumifield.synthetic.camera_placement import OPENGL, SyntheticView
from lumifield.synthetic.multiscale import write_all_splits
from lumifield.synthetic.path_tracer import render_ground_truth, render_image
from lumifield.synthetic.png_files import save_png
from lumifield.synthetic.scene_description import PackedScene, SyntheticScene, pack_scene
from lumifield.synthetic.scene_mesh import write_scene_mesh

# Readers of LLFF hold out every eighth image, starting with the first.
TEST_INTERVAL = 8
# Percentiles of the depth that LLFF stores as near and far.
BOUND_PERCENTILES = (0.1, 99.9)


@dataclass(frozen=True)
class PlannedImage:
    """An image to render: its path without extension, its camera, and its split."""

    name: str
    view: SyntheticView
    split: str


def write_blender(settings: StillLife, folder: Path, progress: Progress) -> None:
    """Writes the table scene in the Blender format: `transforms_SPLIT.json` and images with straight alpha."""
    scene = still_life.make_table_scene()
    images = plan_blender_images(settings)
    for image, pixels in render_images(pack_scene(scene), images, settings, progress):
        save_png(folder / f"{image.name}.png", pixels)
    for split in ("train", "val", "test"):
        frames = [
            {"file_path": f"./{image.name}", "transform_matrix": image.view.opengl_matrix().tolist()}
            for image in images
            if image.split == split
        ]
        text = json.dumps({"camera_angle_x": camera_placement.HORIZONTAL_FOV, "frames": frames}, indent=1)
        (folder / f"transforms_{split}.json").write_text(text)
    write_ground_truth(folder / "ground_truth", scene, images, settings)


def write_multicam(settings: StillLife, folder: Path, progress: Progress) -> None:
    """Writes the multiscale version of the Blender scene, as mip-NeRF reads it, with ground truth for every scale."""
    with tempfile.TemporaryDirectory() as blender_folder:
        write_blender(replace(settings, ground_truth=False), Path(blender_folder), progress)
        write_all_splits(Path(blender_folder), folder)
    metadata = json.loads((folder / "metadata.json").read_text())
    images = []
    for split, columns in metadata.items():
        for row in range(len(columns["file_path"])):
            c2w = np.array(columns["cam2world"][row])[:3] * OPENGL
            view = SyntheticView(c2w, columns["focal"][row], columns["width"][row], columns["height"][row])
            images.append(PlannedImage(columns["file_path"][row].removesuffix(".png"), view, split))
    write_ground_truth(folder / "ground_truth", still_life.make_table_scene(), images, settings)


def write_llff(settings: StillLife, folder: Path, progress: Progress) -> None:
    """Writes the room in the LLFF format: `images/` and `poses_bounds.npy` with 17 numbers per image."""
    scene = still_life.make_room_scene()
    packed = pack_scene(scene)
    num_views = settings.num_train + settings.num_val + settings.num_test
    images = [
        PlannedImage(f"images/{i:03d}", view, "train" if i % TEST_INTERVAL else "test")
        for i, view in enumerate(camera_placement.forward_facing_views(num_views, settings.image_width))
    ]
    for image, pixels in render_images(packed, images, settings, progress):
        save_png(folder / f"{image.name}.png", pixels[..., :3])
    np.save(folder / "poses_bounds.npy", np.stack([llff_row(packed, image.view) for image in images]))
    write_ground_truth(folder / "ground_truth", scene, images, settings)


def plan_blender_images(settings: StillLife) -> list[PlannedImage]:
    """Training and validation views from all sides, test views from one orbit; no camera occurs in two splits."""
    azimuth, width = 2.4 * settings.seed, settings.image_width
    splits = {
        "train": camera_placement.sphere_views(settings.num_train, azimuth, width),
        "val": camera_placement.sphere_views(settings.num_val, azimuth + 1.1, width),
        "test": camera_placement.orbit_views(settings.num_test, azimuth, width),
    }
    return [
        PlannedImage(f"{split}/r_{i}", view, split) for split, views in splits.items() for i, view in enumerate(views)
    ]


def render_images(
    packed: PackedScene, images: list[PlannedImage], settings: StillLife, progress: Progress
) -> Iterator[tuple[PlannedImage, UInt8[np.ndarray, "h w 4"]]]:
    """Renders the images one by one."""
    for i, image in enumerate(images):
        yield image, render_image(packed, image.view, settings.samples_per_pixel, settings.seed * 1_000_003 + i)
        progress(i + 1, len(images))


def llff_row(packed: PackedScene, view: SyntheticView) -> Float[np.ndarray, "17"]:
    """The 3x5 matrix of the columns down, right, back, position and (height, width, focal), then near and far.

    The bounds are percentiles of the z-depth.
    """
    right, down, forward, position = view.c2w.T
    pose = np.stack([down, right, -forward, position, (view.height, view.width, view.focal)], 1)
    depth = render_ground_truth(packed, view).depth * (view.ray_directions() @ forward)
    return np.concatenate([pose.reshape(-1), np.percentile(depth, BOUND_PERCENTILES)])


def write_ground_truth(folder: Path, scene: SyntheticScene, images: list[PlannedImage], settings: StillLife) -> None:
    """Writes depth, normals and item masks of the images that the settings select, and item names and mesh."""
    if not settings.ground_truth:
        return
    packed = pack_scene(scene)
    for image in images:
        if image.split == "train" and not settings.ground_truth_train:
            continue
        ground_truth = render_ground_truth(packed, image.view)
        save_png(folder / f"{image.name}_mask.png", ground_truth.item_id)
        np.save(folder / f"{image.name}_depth.npy", ground_truth.depth)
        np.save(folder / f"{image.name}_normal.npy", ground_truth.normal)
    folder.mkdir(exist_ok=True)
    (folder / "items.json").write_text(json.dumps([item.name for item in scene.items], indent=1))
    write_scene_mesh(folder / "mesh.ply", scene)
