import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from analytic import Room, around, photograph, run_of, scene_of
from commands import called, train
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.geometry.poses import pose_error, se3_retract
from lumifield.localization import Pose, pose_refinement
from lumifield.rendering.camera_paths import read_camera_path
from lumifield.runtime.image_io import to_uint8, write_png
from scenes import written


@pytest.fixture
def run(tmp_path):
    """The room, trained from eight cameras and photographed from three others."""
    test = around(8, (48, 36), 0.5)[:3]
    shifted = se3_retract(test.c2w[0], torch.tensor([0.0, 0.08, 0.0, 0.05, 0.0, 0.05]))
    test = replace(test, c2w=torch.cat([shifted[None], test.c2w[1:]]))
    scenes = {"train": scene_of(around(8, (48, 36), 0.5)), "test": scene_of(test)}
    scenes = {split: replace(scene, background="white") for split, scene in scenes.items()}
    for split, scene in scenes.items():
        source = photograph(tmp_path, scene, split, Room())
    return run_of(tmp_path / "run", Room(), scenes, source)


def errors(run, asked, found):
    distance, degrees = pose_error(found.c2w, asked.lens.c2w[0])
    return float(distance) * run.scenes["train"].frame.scale, float(degrees)


def test_the_truth_is_found_from_poses_about_it(run):
    for asked in pose_refinement.queries_of_split(run, "test"):
        found = pose_refinement.refine_pose(run, asked, pose_refinement.perturb_pose(run, asked, 5.0, 10.0))
        distance, degrees = errors(run, asked, found)
        assert distance < 0.005
        assert degrees < 0.1
        assert found.similarity > 0.99


def test_the_start_is_as_far_off_as_it_is_asked_to_be(run):
    frame = Frame(torch.eye(3), torch.zeros(3), 2.0)
    run = replace(run, scenes={split: replace(scene, frame=frame) for split, scene in run.scenes.items()})
    whole = [
        pose_refinement.perturb_pose(run, asked, 5.0, 10.0, seed=3)[0]
        for asked in pose_refinement.queries_of_split(run, "test")
    ]
    for asked, start in zip(pose_refinement.queries_of_split(run, "test"), whole, strict=True):
        distance, degrees = pose_error(start, asked.lens.c2w[0])
        assert float(distance) * 2.0 == pytest.approx(0.1, abs=1e-5)
        assert float(degrees) == pytest.approx(5, abs=1e-3)
    alone = pose_refinement.queries_of_split(run, "test", 2)
    torch.testing.assert_close(pose_refinement.perturb_pose(run, alone[0], 5.0, 10.0, seed=3)[0], whole[2])
    assert not torch.equal(pose_refinement.perturb_pose(run, alone[0], 5.0, 10.0, seed=4)[0], whole[2])


def test_the_best_of_several_starts_is_followed(run):
    asked = pose_refinement.queries_of_split(run, "test", 0)[0]
    truth = asked.lens.c2w[0]
    away = se3_retract(truth, torch.tensor([0.0, 2.0, 0.0, 0.0, 0.0, 0.0]))
    near = se3_retract(truth, torch.tensor([0.0, 0.02, 0.0, 0.0, 0.05, 0.0]))
    found = pose_refinement.refine_pose(run, asked, torch.stack([away, near]))
    torch.testing.assert_close(found.start, near)
    assert errors(run, asked, found)[0] < 0.005


def test_lookalikes_are_training_cameras_and_the_nearest_comes_first(run):
    asked = pose_refinement.queries_of_split(run, "test", 0)[0]
    poses = pose_refinement.similar_poses(run, asked)
    training = run.scenes["train"].cameras.c2w
    assert poses.shape == (pose_refinement.NUM_INITIAL_POSES, 3, 4)
    torch.testing.assert_close(poses[0], training[0])


def test_a_photograph_from_a_file_has_the_angle_of_view_of_the_training(run, tmp_path):
    write_png(tmp_path / "query.png", torch.zeros(72, 96, 3, dtype=torch.uint8))
    asked = pose_refinement.query_from_file(run, tmp_path / "query.png")
    assert asked.lens.focal.tolist() == [[96.0, 96.0]]
    assert asked.rgb.shape == (72, 96, 3)
    assert not asked.known
    assert pose_refinement.query_from_file(run, tmp_path / "query.png", 50.0).lens.focal.tolist() == [[50.0, 50.0]]


def test_localize_writes_a_camera_path_with_the_errors(run, tmp_path):
    asked = pose_refinement.queries_of_split(run, "test")
    starts = [pose_refinement.perturb_pose(run, each, 2.0, 5.0) for each in asked]
    counts = []
    summary = pose_refinement.localize(run, asked, starts, tmp_path / "out", lambda *count: counts.append(count))
    assert counts == [(1, 3), (2, 3), (3, 3)]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["000.png", "001.png", "002.png", "poses.json", "summary.json"]
    entries = json.loads((tmp_path / "out" / "poses.json").read_text())
    assert [entry["name"] for entry in entries] == [each.name for each in asked]
    assert entries[0]["initial_error"] == pytest.approx([5, 2], abs=1e-2)
    cameras = read_camera_path(tmp_path / "out" / "poses.json", run.scenes["train"])
    for each, c2w, entry in zip(asked, cameras.c2w, entries, strict=True):
        distance, degrees = pose_error(c2w, each.lens.c2w[0])
        assert entry["error"] == pytest.approx([100 * float(distance), float(degrees)], abs=1e-3)
    assert summary == json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["images"] == 3
    assert summary["success"] == {"within 3 cm and 1 degrees": 1.0, "within 5 cm and 5 degrees": 1.0}
    assert summary["median_initial_error"] == pytest.approx([5, 2], abs=1e-2)
    assert summary["median_error"][0] == sorted(entry["error"][0] for entry in entries)[1]


def test_a_photograph_of_unknown_pose_has_no_errors(run, tmp_path):
    truth = pose_refinement.queries_of_split(run, "test", 1)[0]
    write_png(tmp_path / "query.png", to_uint8(truth.rgb))
    asked = pose_refinement.query_from_file(run, tmp_path / "query.png")
    summary = pose_refinement.localize(run, [asked], [pose_refinement.similar_poses(run, asked)], tmp_path / "out")
    assert summary.keys() == {"images", "seconds"}
    entry = json.loads((tmp_path / "out" / "poses.json").read_text())[0]
    assert "error" not in entry
    distance, _ = pose_error(torch.tensor(entry["c2w"])[:3], truth.lens.c2w[0])
    assert float(distance) < 0.01


@pytest.mark.parametrize("size", [(1, 1), (90, 2), (1, 90)])
def test_a_strip_of_a_photograph_is_no_fault(run, tmp_path, size):
    write_png(tmp_path / "strip.png", torch.zeros(*size, 3, dtype=torch.uint8))
    asked = pose_refinement.query_from_file(run, tmp_path / "strip.png")
    found = pose_refinement.refine_pose(run, asked, run.scenes["train"].cameras.c2w[:1])
    assert bool(found.c2w.isfinite().all())


def test_starts_from_a_file_are_one_for_each_photograph(run, tmp_path):
    asked = pose_refinement.queries_of_split(run, "test")
    pose_refinement.localize(run, asked[:1], [asked[0].lens.c2w], tmp_path / "one")
    (start,) = pose_refinement.read_initial_poses(run, tmp_path / "one" / "poses.json", 1)
    assert start.shape == (1, 3, 4)
    with pytest.raises(DataError, match=r"poses\.json: number of cameras: found 1"):
        pose_refinement.read_initial_poses(run, tmp_path / "one" / "poses.json", 3)


def test_refusals(run):
    with pytest.raises(DataError, match="view: found 3"):
        pose_refinement.queries_of_split(run, "test", 3)
    with pytest.raises(DataError, match=r"split 'val': found no cameras"):
        pose_refinement.queries_of_split(run, "val")
    with pytest.raises(DataError, match=r"data: found none \(a portable scene\)"):
        pose_refinement.queries_of_split(replace(run, source=None), "test")


def test_settings_say_where_to_start(run, tmp_path):
    counts = []
    said = pose_refinement.refine_and_write(
        Pose(initial_error=(2.0, 5.0), view_index=1, out=tmp_path / "first"), run, lambda *count: counts.append(count)
    )
    assert re.fullmatch(
        r"1 images: median 0\.\d cm, 0\.0\d degrees \(from 5\.0 cm, 2\.00 degrees\); "
        rf"100% within 3 cm and 1 degrees, 100% within 5 cm and 5 degrees\n{tmp_path}/first/poses\.json",
        said,
    )
    assert counts == [(1, 1)]
    said = pose_refinement.refine_and_write(
        Pose(initial_poses=tmp_path / "first" / "poses.json", view_index=1), run, lambda *_: None
    )
    assert "(from 0." in said
    assert (run.folder / "localize" / "pose" / "poses.json").is_file()


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(DataError, match=r"initial_error: found given"):
        Pose(image=Path("a.png"), initial_error=(1.0, 1.0))
    with pytest.raises(DataError, match="initial_error: found given"):
        Pose(initial_poses=Path("a.json"), initial_error=(1.0, 1.0))
    with pytest.raises(DataError, match="view_index: found 3"):
        Pose(image=Path("a.png"), view_index=3)
    with pytest.raises(DataError, match="focal: found 0"):
        Pose(focal=0.0)


def test_the_command_line_reaches_both_localizers(tmp_path, capsys):
    source = written(tmp_path / "ball", views=4, size=16)
    called(*train(source.data, tmp_path / "run"))
    capsys.readouterr()
    image = source.data / "test" / "r_1.png"
    called("localize", "pose", tmp_path / "run", "--image", image, "--out", tmp_path / "found")
    assert capsys.readouterr().out.split() == [str(tmp_path / "found" / "poses.json")]
    assert (tmp_path / "found" / "000.png").is_file()
    tiny = ("--network.steps", "2", "--network.image-size", "8", "--seeds", "1", "2")
    called("localize", "baseline", tmp_path / "run", "--synthetic", source.data, *tiny)
    said = capsys.readouterr().out.strip()
    assert re.match(r"2 images: median .* cm, .* degrees; with 4 synthetic views", said)
    assert (tmp_path / "run" / "localize" / "baseline" / "poses.json").is_file()
