"""Exported cameras, read back by the readers of the package and by short readers of each format."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh

import made_scenes
from analytic import Ball, around, run_of, scene_of
from lumifield import data
from lumifield.data import Source
from lumifield.data.scene import Frame
from lumifield.export import CamerasExport
from lumifield.export.cameras import to_world_cameras
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rays import Ndc
from refusals import refuses

LAYOUTS = {
    "blender": lambda root: made_scenes.blender(root),
    "multicam": lambda root: made_scenes.multicam(root),
    "transforms": lambda root: made_scenes.transforms(root),
    "forward": lambda root: made_scenes.llff(root, made_scenes.row(9)),
    "inward": lambda root: made_scenes.llff(root, made_scenes.ring(9)),
}


def capture_run(folder: Path, root: Path, **changes):
    """A run with the scenes of a capture."""
    source = Source(root, **changes)
    return run_of(
        folder,
        Ball(),
        {split: data.open_capture(source).cameras(split) for split in data.open_capture(source).splits},
        source,
    )


def cameras_by_image(source: Source, split: str) -> dict[Path, Cameras]:
    """World camera of each image."""
    scene, files = data.open_capture(source).locate_images(split)
    cameras = to_world_cameras(scene)
    return {path.resolve(): cameras[[row]] for row, path in enumerate(files.paths)}


def assert_cameras_equal(one: Cameras, other: Cameras) -> None:
    for name in ("c2w", "focal", "center", "size", "distortion"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_reader_finds_equal_cameras_in_the_same_splits(layout, tmp_path):
    run = capture_run(tmp_path / "run", LAYOUTS[layout](tmp_path / "data"), downscale=2)
    CamerasExport().write(run, tmp_path / "elsewhere" / "transforms.json")
    again = Source(tmp_path / "elsewhere")
    assert data.open_capture(again).splits == data.open_capture(run.source).splits
    for split in data.open_capture(again).splits:
        before, after = cameras_by_image(replace(run.source, downscale=1), split), cameras_by_image(again, split)
        assert before.keys() == after.keys()
        for path in before:
            assert_cameras_equal(before[path], after[path])


def test_shared_intrinsics_are_written_once(tmp_path):
    CamerasExport().write(capture_run(tmp_path / "run", made_scenes.transforms(tmp_path / "a")), tmp_path / "a.json")
    CamerasExport().write(capture_run(tmp_path / "run", made_scenes.multicam(tmp_path / "b")), tmp_path / "b.json")
    equal, mixed = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert (equal["fl_x"], equal["w"], equal["k1"]) == pytest.approx((9.0, 8, 0.05))
    assert equal["frames"][0].keys() == {"file_path", "transform_matrix"}
    assert "fl_x" not in mixed
    assert {frame["w"] for frame in mixed["frames"]} == {24, 12, 6, 3}


def test_masks_are_written_with_their_images(tmp_path):
    root = made_scenes.transforms(tmp_path / "data", n=4)
    made_scenes.save(root / "mask.png", np.full((6, 8), 255, np.uint8))
    made_scenes.edit(root / "transforms.json", lambda content: content["frames"][1].update(mask_path="mask.png"))
    CamerasExport().write(capture_run(tmp_path / "run", root), tmp_path / "out.json")
    frames = json.loads((tmp_path / "out.json").read_text())["frames"]
    masks = {frame["file_path"]: frame.get("mask_path") for frame in frames}
    assert masks == {f"data/images/{i:03d}.png": "data/mask.png" if i == 1 else None for i in range(4)}


def test_without_images_cameras_have_the_training_size(tmp_path):
    run = capture_run(tmp_path / "run", made_scenes.blender(tmp_path / "data"), downscale=2)
    shutil.rmtree(tmp_path / "data")
    CamerasExport().write(run, tmp_path / "missing.json")
    CamerasExport().write(replace(run, source=None), tmp_path / "portable.json")
    content = json.loads((tmp_path / "missing.json").read_text())
    assert (content["w"], content["h"]) == (4, 3)
    assert [frame["file_path"] for frame in content["frames"]][:2] == ["train/r_0", "train/r_1"]
    assert (tmp_path / "portable.json").read_text() == (tmp_path / "missing.json").read_text()


def posed_run(tmp_path, **scene):
    """A run whose scene frame differs from the world."""
    rotation = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    train = replace(scene_of(around(5), frame=Frame(rotation, torch.tensor([5.0, 6.0, 7.0]), 3.0)), **scene)
    test = replace(train, cameras=around(2, (20, 10)), names=("a", "b"))
    return run_of(tmp_path / "run", Ball(), {"train": train, "test": test})


@pytest.mark.parametrize(("unbounded", "scale"), [(False, 1), (True, 16)])
def test_the_region_of_interest_fills_the_unit_cube_of_instant_ngp(tmp_path, unbounded, scale):
    box = torch.tensor([[-1.0, -2.0, 0.0], [1.0, 2.0, 3.0]])
    run = posed_run(tmp_path, box=box, unbounded=unbounded)
    CamerasExport().write(run, tmp_path / "t.json")
    content = json.loads((tmp_path / "t.json").read_text())
    corners = run.scenes["train"].frame.to_world(torch.cartesian_prod(*box.T))
    unit = content["scale"] * corners + torch.tensor(content["offset"])
    torch.testing.assert_close(unit.mean(0), torch.full((3,), 0.5))
    assert float((unit.amax(0) - unit.amin(0)).max()) == pytest.approx(1)
    assert content["aabb_scale"] == scale


def test_an_ndc_scene_has_no_region_for_instant_ngp(tmp_path):
    CamerasExport().write(posed_run(tmp_path, ndc=Ndc((30.0, 30.0), (32, 24))), tmp_path / "t.json")
    assert "aabb_scale" not in json.loads((tmp_path / "t.json").read_text())


def read_colmap(folder: Path):
    """Name, rotation and translation (world to camera), model and `width height parameters` of each image."""
    lines = {file.stem: file.read_text().splitlines() for file in folder.iterdir()}
    assert lines["points3D"] == [line for line in lines["points3D"] if line.startswith("#")]
    cameras = {}
    for line in lines["cameras"][1:]:
        number, model, *values = line.split()
        cameras[number] = model, np.array(values, float)
    for first, second in zip(lines["images"][1::2], lines["images"][2::2], strict=True):
        assert second == ""
        _, *pose, number, name = first.split()
        w, x, y, z, *translation = map(float, pose)
        rotation = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        yield name, np.array(rotation), np.array(translation), *cameras[number]


@pytest.mark.parametrize("distortion", [(0.0, 0.0, 0.0, 0.0), (0.1, -0.02, 0.003, 0.001)])
def test_the_colmap_model_projects_world_points_to_equal_pixels(tmp_path, distortion):
    run = posed_run(tmp_path)
    distorted = {
        split: replace(scene, cameras=replace(scene.cameras, distortion=torch.tensor([distortion] * len(scene))))
        for split, scene in run.scenes.items()
    }
    CamerasExport().write(replace(run, scenes=distorted), tmp_path / "model")
    images = list(read_colmap(tmp_path / "model"))
    assert [image[0] for image in images] == [*(f"view_{i}" for i in range(5)), "a", "b"]
    scene_points = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    world = run.scenes["train"].frame.to_world(scene_points).numpy()
    expected = torch.cat([scene.cameras.project(scene_points)[0] for scene in distorted.values()])
    for (_, rotation, translation, model, values), pixels in zip(images, expected, strict=True):
        x, y, z = rotation @ world.T + translation[:, None]
        x, y = x / z, y / z
        k1, k2, p1, p2 = distortion
        assert model == ("OPENCV" if any(distortion) else "PINHOLE")
        assert list(values[6:]) == pytest.approx([k1, k2, p1, p2] if any(distortion) else [])
        r2 = x * x + y * y
        radial = 1 + k1 * r2 + k2 * r2**2
        u = x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x)
        v = y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y
        width, height, fx, fy, cx, cy = values[:6]
        assert (width, height) in ((32, 24), (20, 10))
        np.testing.assert_allclose(np.stack([fx * u + cx, fy * v + cy], -1), pixels.numpy(), atol=1e-3)


def test_colmap_image_names_are_relative_to_the_capture(tmp_path):
    run = capture_run(tmp_path / "run", made_scenes.blender(tmp_path / "data"))
    CamerasExport().write(run, tmp_path / "model")
    names = [image[0] for image in read_colmap(tmp_path / "model")]
    assert names[:3] == [f"train/r_{i}.png" for i in range(3)]
    assert len((tmp_path / "model" / "cameras.txt").read_text().splitlines()) == 2


def test_frusta_have_the_poses_and_fields_of_view_of_the_cameras(tmp_path):
    run = posed_run(tmp_path)
    CamerasExport().write(run, tmp_path / "f.ply")
    mesh = trimesh.load(tmp_path / "f.ply", process=False)
    corners = torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32).view(7, 5, 3)
    frame = run.scenes["train"].frame
    row = 0
    for scene, color in ((run.scenes["train"], (210, 40, 40)), (run.scenes["test"], (30, 90, 220))):
        for index in range(len(scene)):
            width, height = scene.size(index)
            apex, base = frame.to_scene(corners[row, :1]), frame.to_scene(corners[row, 1:])
            torch.testing.assert_close(apex[0], scene.cameras.positions[index], rtol=1e-4, atol=1e-4)
            pixels, depth = scene.cameras[[index]].project(base)
            expected = torch.tensor([[0, 0], [width, 0], [width, height], [0, height]]).float()
            torch.testing.assert_close(pixels[0], expected, rtol=0, atol=1e-2)
            assert bool((depth > 0).all())
            assert {tuple(c) for c in mesh.visual.vertex_colors[5 * row : 5 * row + 5, :3].tolist()} == {color}
            row += 1
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0


def test_the_split_and_format_options_are_applied(tmp_path):
    run = posed_run(tmp_path)
    CamerasExport(format="transforms", split="test").write(run, tmp_path / "cameras.txt")
    content = json.loads((tmp_path / "cameras.txt").read_text())
    assert content["test_filenames"] == [frame["file_path"] for frame in content["frames"]] == ["a", "b"]
    assert "train_filenames" not in content
    CamerasExport(format="colmap").write(run, tmp_path / "v1.5")
    assert sorted(file.name for file in (tmp_path / "v1.5").iterdir()) == ["cameras.txt", "images.txt", "points3D.txt"]


@pytest.mark.parametrize(
    ("settings", "name", "field", "found"),
    [
        (CamerasExport(), "t.xml", "extension", "'.xml'"),
        (CamerasExport(split="all"), "t.json", "split", "'all'"),
        (CamerasExport(), "taken.json", "output", "a folder"),
        (CamerasExport(format="colmap"), "file", "output", "a file"),
    ],
)
def test_refused_settings_leave_no_file(tmp_path, settings, name, field, found):
    (tmp_path / "taken.json").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with refuses(field, found=found):
        settings.write(posed_run(tmp_path), tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before
