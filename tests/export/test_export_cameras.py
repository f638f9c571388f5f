"""Cameras for other programs, read back by our own reader and by short readers of each format."""

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
from lumifield.errors import DataError
from lumifield.export import CamerasExport
from lumifield.export.cameras import to_world_cameras
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rays import Ndc

LAYOUTS = {
    "blender": lambda root: made_scenes.blender(root),
    "multicam": lambda root: made_scenes.multicam(root),
    "transforms": lambda root: made_scenes.transforms(root),
    "forward": lambda root: made_scenes.llff(root, made_scenes.row(9)),
    "inward": lambda root: made_scenes.llff(root, made_scenes.ring(9)),
}


def run_on(folder: Path, root: Path, **changes):
    """A run whose scenes are those of a folder of images."""
    source = Source(root, **changes)
    return run_of(
        folder, Ball(), {split: data.read_cameras(source, split) for split in data.list_splits(source)}, source
    )


def listed(source: Source, split: str) -> dict[Path, Cameras]:
    """The camera of each image, in the world frame."""
    scene, files = data.locate_images(source, split)
    cameras = to_world_cameras(scene)
    return {path.resolve(): cameras[[row]] for row, path in enumerate(files.paths)}


def assert_alike(one: Cameras, other: Cameras) -> None:
    for name in ("c2w", "focal", "center", "size", "distortion"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_our_reader_finds_the_same_cameras_in_the_same_splits(layout, tmp_path):
    run = run_on(tmp_path / "run", LAYOUTS[layout](tmp_path / "data"), downscale=2)
    CamerasExport().write(run, tmp_path / "elsewhere" / "transforms.json")
    again = Source(tmp_path / "elsewhere")
    assert data.list_splits(again) == data.list_splits(run.source)
    for split in data.list_splits(again):
        before, after = listed(replace(run.source, downscale=1), split), listed(again, split)
        assert before.keys() == after.keys()
        for path in before:
            assert_alike(before[path], after[path])


def test_what_all_cameras_share_is_said_once(tmp_path):
    CamerasExport().write(run_on(tmp_path / "run", made_scenes.transforms(tmp_path / "a")), tmp_path / "a.json")
    CamerasExport().write(run_on(tmp_path / "run", made_scenes.multicam(tmp_path / "b")), tmp_path / "b.json")
    alike, mixed = (json.loads((tmp_path / name).read_text()) for name in ("a.json", "b.json"))
    assert (alike["fl_x"], alike["w"], alike["k1"]) == pytest.approx((9.0, 8, 0.05))
    assert alike["frames"][0].keys() == {"file_path", "transform_matrix"}
    assert "fl_x" not in mixed
    assert {frame["w"] for frame in mixed["frames"]} == {24, 12, 6, 3}


def test_masks_are_named_too(tmp_path):
    root = made_scenes.transforms(tmp_path / "data", n=4)
    made_scenes.save(root / "mask.png", np.full((6, 8), 255, np.uint8))
    made_scenes.edit(root / "transforms.json", lambda content: content["frames"][1].update(mask_path="mask.png"))
    CamerasExport().write(run_on(tmp_path / "run", root), tmp_path / "out.json")
    frames = json.loads((tmp_path / "out.json").read_text())["frames"]
    masks = {frame["file_path"]: frame.get("mask_path") for frame in frames}
    assert masks == {f"data/images/{i:03d}.png": "data/mask.png" if i == 1 else None for i in range(4)}


def test_without_photographs_cameras_are_those_of_the_training(tmp_path):
    run = run_on(tmp_path / "run", made_scenes.blender(tmp_path / "data"), downscale=2)
    shutil.rmtree(tmp_path / "data")
    CamerasExport().write(run, tmp_path / "gone.json")
    CamerasExport().write(replace(run, source=None), tmp_path / "portable.json")
    content = json.loads((tmp_path / "gone.json").read_text())
    assert (content["w"], content["h"]) == (4, 3)
    assert [frame["file_path"] for frame in content["frames"]][:2] == ["train/r_0", "train/r_1"]
    assert (tmp_path / "portable.json").read_text() == (tmp_path / "gone.json").read_text()


def posed_run(tmp_path, **scene):
    """A run whose scene frame is not the world's."""
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    train = replace(scene_of(around(5), frame=Frame(turn, torch.tensor([5.0, 6.0, 7.0]), 3.0)), **scene)
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


def test_an_ndc_scene_has_no_region(tmp_path):
    CamerasExport().write(posed_run(tmp_path, ndc=Ndc((30.0, 30.0), (32, 24))), tmp_path / "t.json")
    assert "aabb_scale" not in json.loads((tmp_path / "t.json").read_text())


def colmap(folder: Path):
    """Name, rotation and translation into the camera, and `width height parameters` of each image."""
    lines = {file.stem: file.read_text().splitlines() for file in folder.iterdir()}
    assert lines["points3D"] == [line for line in lines["points3D"] if line.startswith("#")]
    lenses = {}
    for line in lines["cameras"][1:]:
        number, model, *values = line.split()
        lenses[number] = model, np.array(values, float)
    for first, second in zip(lines["images"][1::2], lines["images"][2::2], strict=True):
        assert second == ""
        _, *pose, number, name = first.split()
        w, x, y, z, *translation = map(float, pose)
        rotation = [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
        yield name, np.array(rotation), np.array(translation), *lenses[number]


@pytest.mark.parametrize("distortion", [(0.0, 0.0, 0.0, 0.0), (0.1, -0.02, 0.003, 0.001)])
def test_colmap_projects_world_points_as_we_do(tmp_path, distortion):
    run = posed_run(tmp_path)
    distorted = {
        split: replace(scene, cameras=replace(scene.cameras, distortion=torch.tensor([distortion] * len(scene))))
        for split, scene in run.scenes.items()
    }
    CamerasExport().write(replace(run, scenes=distorted), tmp_path / "model")
    images = list(colmap(tmp_path / "model"))
    assert [image[0] for image in images] == [*(f"view_{i}" for i in range(5)), "a", "b"]
    inner = torch.rand(20, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    world = run.scenes["train"].frame.to_world(inner).numpy()
    expected = torch.cat([scene.cameras.project(inner)[0] for scene in distorted.values()])
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


def test_colmap_names_photographs_below_their_folder(tmp_path):
    run = run_on(tmp_path / "run", made_scenes.blender(tmp_path / "data"))
    CamerasExport().write(run, tmp_path / "model")
    names = [image[0] for image in colmap(tmp_path / "model")]
    assert names[:3] == [f"train/r_{i}.png" for i in range(3)]
    assert len((tmp_path / "model" / "cameras.txt").read_text().splitlines()) == 2


def test_frusta_stand_where_the_cameras_are(tmp_path):
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


def test_one_split_and_a_format_of_its_own(tmp_path):
    run = posed_run(tmp_path)
    CamerasExport(format="transforms", split="test").write(run, tmp_path / "cameras.txt")
    content = json.loads((tmp_path / "cameras.txt").read_text())
    assert content["test_filenames"] == [frame["file_path"] for frame in content["frames"]] == ["a", "b"]
    assert "train_filenames" not in content
    CamerasExport(format="colmap").write(run, tmp_path / "v1.5")
    assert sorted(file.name for file in (tmp_path / "v1.5").iterdir()) == ["cameras.txt", "images.txt", "points3D.txt"]


@pytest.mark.parametrize(
    ("settings", "name", "message"),
    [
        (CamerasExport(), "t.xml", r"extension: found '\.xml'"),
        (CamerasExport(split="all"), "t.json", "split: found 'all'"),
        (CamerasExport(), "taken.json", "output: found a folder"),
        (CamerasExport(format="colmap"), "file", "output: found a file"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(tmp_path, settings, name, message):
    (tmp_path / "taken.json").mkdir()
    (tmp_path / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DataError, match=message):
        settings.write(posed_run(tmp_path), tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == before
