"""`localize synthesize`: views as a sequence on the disk, each once, in the layout of a reader that reads it again."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

import made_reconstructions as sfm
import made_scenes as made
from analytic import Ball, around, run_of, scene_of
from commands import called, refusal, train
from lumifield import data
from lumifield.data import Source
from lumifield.data.readers import cambridge
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.localization import Synthesize
from lumifield.localization.lens import select, sequence_files, synthesize
from lumifield.localization.lens.sequence_files import SevenScenes
from lumifield.rendering.camera_paths import format_camera_path
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import read_run
from lumifield.runtime import distributed
from lumifield.runtime.image_io import to_uint8
from scenes import SMALL, ball

FRAME = Frame(torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), torch.tensor([5.0, -6.0, 7.0]), 0.5)
WRITERS = {"cambridge": sfm.cambridge, "seven_scenes": sfm.seven_scenes}


def silent(done: int, total: int) -> None:
    assert done <= total


@pytest.fixture(scope="module", params=WRITERS)
def looped(request, tmp_path_factory):
    """A scene, a run on it, and what the three commands leave: its name, the scene, the run."""
    root = tmp_path_factory.mktemp(request.param)
    kind = {"radial": 0.02} if request.param == "cambridge" else {"depth": (0, 3)}
    scene = WRITERS[request.param](root / "scene", made.ring(9, target=(3, 1, -2)), **kind)
    called(*train(scene, root / "run"))
    called("localize", "density", root / "run", "--num-cells", "300", "--density-threshold", "1e9")
    called("localize", "select", root / "run", "--num-views", "5")
    called("localize", "synthesize", root / "run")
    return request.param, scene, root / "run"


def wanted(run):
    """The poses that were selected, in the world."""
    cameras = json.loads((run / "localize/views.json").read_text())
    return np.array([camera["c2w"] for camera in cameras])[:, :3]


def stated(name, sequence):
    """The poses in the files of the sequence, in double precision."""
    if name == "cambridge":
        model = cambridge.load_cambridge(sequence)
        rows = [row for row, shot in enumerate(model.names) if shot.startswith("seq_synthesis/")]
        return model.c2w[rows].numpy()
    return np.stack([np.loadtxt(file)[:3] for file in sorted(sequence.glob("seq-99/*.pose.txt"))])


def test_the_same_reader_reads_the_sequence_again(looped):
    name, _, folder = looped
    sequence, run = folder / "localize/sequence", read_run(folder)
    assert data.detect_format(sequence) == name
    assert data.open_capture(Source(sequence)).splits == ("synthesis",)
    scene = data.read_scene(Source(sequence), "synthesis")
    assert np.abs(stated(name, sequence) - wanted(folder)).max() < 1e-6
    world = scene.frame.poses_to_world(scene.cameras.c2w)
    assert np.abs(world.numpy() - wanted(folder)).max() < 1e-5
    settings = Synthesize()
    views, _ = synthesize.novel_view_scene(settings, run, synthesize.select_layout(settings, run, sequence))
    torch.testing.assert_close(scene.cameras.focal, views.cameras.focal)
    torch.testing.assert_close(scene.cameras.center, views.cameras.center)
    for index in range(5):
        view = render_view(run.method, views, index, device=run.device)
        assert torch.equal(scene.images.image(index, scene.size(index)), to_uint8(view.rgb))


def test_the_sequence_can_be_put_into_the_scene(looped, tmp_path):
    name, scene, folder = looped
    before = {split: data.open_capture(Source(scene)).cameras(split) for split in ("train", "test")}
    shutil.copytree(scene, tmp_path / "both")
    for _ in range(2):
        shutil.copytree(folder / "localize/sequence", tmp_path / "both", dirs_exist_ok=True)
    source = Source(tmp_path / "both")
    assert data.open_capture(source).splits == ("train", "test", "synthesis")
    for split, old in before.items():
        new = data.open_capture(source).cameras(split)
        assert new.names == old.names
        old_world, new_world = (one.frame.poses_to_world(one.cameras.c2w) for one in (old, new))
        torch.testing.assert_close(new_world, old_world, atol=1e-5, rtol=0)
        torch.testing.assert_close(new.near * new.frame.scale, old.near * old.frame.scale)
    assert len(data.open_capture(source).cameras("synthesis")) == 5
    again = read_run(folder)
    settings = Synthesize(data=tmp_path / "both", out=tmp_path / "again")
    Synthesize.apply(settings, again, silent)
    assert np.abs(stated(name, tmp_path / "again") - wanted(folder)).max() < 1e-6


def test_lists_for_hloc(looped):
    _, _, folder = looped
    sequence = folder / "localize/sequence"
    names, with_supported_intrinsics, poses = (
        (sequence / f"hloc/synthesis_{part}.txt").read_text().splitlines() for part in ("names", "lenses", "poses")
    )
    assert all((sequence / name).is_file() for name in names)
    for name, lens, pose, c2w in zip(names, with_supported_intrinsics, poses, wanted(folder), strict=True):
        words, numbers = lens.split(), np.array(pose.split()[1:], float)
        with Image.open(sequence / name) as image:
            assert words[:4] == [name, "PINHOLE", str(image.width), str(image.height)]
        assert len(words) == 8
        turned = Rotation.from_quat(numbers[:4], scalar_first=True).as_matrix()
        assert np.abs(turned - c2w[:, :3].T).max() < 1e-6
        assert np.abs(turned @ c2w[:, 3] + numbers[4:]).max() < 1e-6
        assert pose.split()[0] == name


@pytest.mark.parametrize("looped", ["cambridge"], indirect=True)
def test_cambridge_lists_have_the_published_form(looped):
    _, _, folder = looped
    lines = (folder / "localize/sequence/dataset_synthesis.txt").read_text().splitlines()
    assert lines[0] == "Visual Landmark Dataset V1"
    assert lines[2] == ""
    for index, (line, c2w) in enumerate(zip(lines[3:], wanted(folder), strict=True)):
        words = line.split()
        assert words[0] == f"seq_synthesis/synthesis_view_{index:05d}.png"
        assert np.abs(np.array(words[1:4], float) - c2w[:, 3]).max() < 1e-6
        turned = Rotation.from_quat(np.array(words[4:], float), scalar_first=True).as_matrix()
        assert np.abs(turned - c2w[:, :3].T).max() < 1e-6


def ball_run(folder, count: int = 6, method: Ball | None = None):
    """The ball in a world half as large, turned and moved, with `count` new views round it."""
    run = run_of(folder / "run", method or Ball(), {"train": scene_of(around(4), frame=FRAME)})
    file = select.novel_views_file(run)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(format_camera_path(around(count, distance=3.5), FRAME))
    return run


def test_depth_is_along_the_axis_in_millimeters(tmp_path):
    """Of the ball of radius 1/2 as seen from 7/4 away: 5/4 in the middle, and where nothing is met 0."""
    run = ball_run(tmp_path)
    Synthesize(out=tmp_path / "out", size=(33, 25)).apply(run, silent)
    depth = np.asarray(Image.open(tmp_path / "out/seq-99/frame-000002.depth.png"))
    assert depth.dtype == np.uint16
    assert (depth.shape, depth[0, 0]) == ((25, 33), 0)
    assert depth[12, 16] == 1250
    pose = np.loadtxt(tmp_path / "out/seq-99/frame-000002.pose.txt")
    focal = 32 * 25 / 24
    v, u = np.nonzero(depth)
    z = depth[v, u] / 1000
    local = np.stack([(u + 0.5 - 16.5) / focal * z, (v + 0.5 - 12.5) / focal * z, z], -1)
    points = local @ pose[:3, :3].T + pose[:3, 3]
    assert np.abs(np.linalg.norm(points - [5, -6, 7], axis=-1) - 0.5).max() < 2e-3


def test_depth_beyond_sixteen_bits_is_no_measurement(tmp_path):
    run = ball_run(tmp_path)
    far = replace(run.scenes["train"], frame=replace(FRAME, scale=30.0))
    SevenScenes().save(tmp_path, far, 0, render_view(run.method, far, 0, device=run.device))
    assert not np.asarray(Image.open(tmp_path / "seq-99/frame-000000.depth.png")).any()


def test_rays_reach_as_much_farther_as_the_view_is_off(tmp_path):
    run = ball_run(tmp_path, count=4)
    scene, row = synthesize.novel_view_scene(Synthesize(), run, SevenScenes())
    assert row.tolist() == [0, 1, 2, 3]
    assert scene.near.tolist() == pytest.approx([1.5] * 4)
    assert scene.far.tolist() == pytest.approx([6.5] * 4)
    select.novel_views_file(run).write_text(format_camera_path(around(1, distance=1.0), FRAME))
    assert synthesize.novel_view_scene(Synthesize(), run, SevenScenes())[0].near.item() == pytest.approx(0.2)


def test_one_lens_for_a_sequence():
    cameras = around(3)
    cameras.focal[2] = 40.0
    cameras.size[1] = torch.tensor([64, 48])
    alike = SevenScenes().with_supported_intrinsics(cameras)
    assert (alike.size == torch.tensor([32, 24])).all()
    assert (alike.focal == alike.focal[0, 0]).all()


def test_a_focal_length_of_its_own_is_told(tmp_path):
    assert Synthesize(out=tmp_path / "out").apply(ball_run(tmp_path), silent).endswith("read with --focal 32)")
    assert data.read_scene(Source(tmp_path / "out", focal=32.0), "synthesis").cameras.focal[0].tolist() == [32.0, 32.0]


@pytest.fixture
def rendered(monkeypatch):
    """The views that are rendered, in order."""
    views: list[int] = []

    def noted(method, scene, index, **options):
        views.append(index)
        return render_view(method, scene, index, **options)

    monkeypatch.setattr(synthesize, "render_view", noted)
    return views


def test_views_that_are_there_are_kept(tmp_path, rendered):
    run, out = ball_run(tmp_path), tmp_path / "out"
    Synthesize(out=out).apply(run, silent)
    assert rendered == list(range(6))
    for name in ("seq-99/frame-000003.color.png", "seq-99/frame-000003.pose.txt", "SynthesisSplit.txt"):
        (out / name).unlink()
    Synthesize(out=out).apply(run, silent)
    assert rendered[6:] == [3]
    assert len(data.open_capture(Source(out)).cameras("synthesis")) == 6


def test_several_processes_share_what_is_absent(tmp_path, rendered, monkeypatch):
    run = ball_run(tmp_path, count=7)
    Synthesize(out=tmp_path / "0").apply(run, silent)
    (tmp_path / "0/seq-99/frame-000002.color.png").unlink()
    (tmp_path / "0/seq-99/frame-000005.color.png").unlink()
    (tmp_path / "0/SynthesisSplit.txt").unlink()
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    rendered.clear()
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "join", lambda rank=rank: (rank, 2))
        Synthesize(out=tmp_path / str(rank)).apply(run, silent)
    assert rendered == [2, 5]
    assert not (tmp_path / "1/SynthesisSplit.txt").exists()


def test_another_sequence_is_not_continued(tmp_path):
    run, out = ball_run(tmp_path), tmp_path / "out"
    Synthesize(out=out).apply(run, silent)
    with pytest.raises(DataError, match="out: sequence: found a sequence of other views, weights or appearances"):
        Synthesize(out=out, size=(16, 12)).apply(run, silent)
    (out / "synthesis.json").unlink()
    with pytest.raises(DataError, match="choose another --out, or remove it"):
        Synthesize(out=out).apply(run, silent)


def test_the_folder_of_the_images_is_not_overwritten(looped, capsys):
    name, scene, run = looped
    if name == "cambridge":
        said = refusal(capsys, "localize", "synthesize", run, "--out", scene)
        assert "output: found the folder of the images, whose model would be replaced" in said


class Lit(Ball):
    """The ball in the light that an embedding of one number says."""

    @property
    def appearance_embeddings(self):
        return torch.tensor([[0.0], [0.25], [0.5], [1.0]])

    def forward(self, rays, context):
        view = super().forward(rays, context)
        return replace(view, rgb=context.appearance_embedding.expand(len(rays), 1).expand(-1, 3))


def lights(run, appearance, nearest_images=(0, 1, 2, 3), **options):
    embeddings = synthesize.select_embeddings(
        Synthesize(appearance=appearance, **options), run, torch.tensor(nearest_images)
    )
    return embeddings[:, 0].tolist()


def test_appearances(tmp_path):
    run = ball_run(tmp_path, method=Lit())
    assert lights(run, "nearest", (3, 0)) == [1.0, 0.0]
    assert lights(run, "mean", (3, 0)) == pytest.approx([0.4375] * 2)
    assert lights(run, "view_2", (3, 0)) == [0.5, 0.5]
    mixed = lights(run, "mixed", (0,) * 500)
    assert mixed == lights(run, None, (0,) * 500) != lights(run, None, (0,) * 500, seed=1)
    assert 0 <= min(mixed) < 0.01 < 0.9 < max(mixed) <= 1
    assert np.mean(mixed) == pytest.approx(0.4375, abs=0.05)


def test_views_are_rendered_in_their_light(tmp_path):
    run = ball_run(tmp_path, method=Lit())
    Synthesize(out=tmp_path / "out", appearance="view_1").apply(run, silent)
    assert (np.asarray(Image.open(tmp_path / "out/seq-99/frame-000005.color.png")) == 64).all()


def test_appearances_that_cannot_be(tmp_path):
    with pytest.raises(DataError, match="'view_9', expected mixed, nearest, mean, or a training image like vi"):
        lights(ball_run(tmp_path, method=Lit()), "view_9")
    with pytest.raises(DataError, match="appearance: found 'mean'"):
        lights(ball_run(tmp_path), "mean")


@pytest.mark.parametrize("name", ["nerf-w", "nerf-w, mlp"])
def test_images_in_the_wild_lend_their_looks(name, tmp_path):
    torch.manual_seed(0)
    scene = ball(4)
    run = run_of(tmp_path / "run", SMALL[name].build(scene).eval(), {"train": scene.without_images()})
    select.novel_views_file(run).parent.mkdir(parents=True)
    select.novel_views_file(run).write_text(format_camera_path(scene.cameras[[1]], scene.frame))
    images = []
    for appearance in ("nearest", scene.names[1], scene.names[2], "mixed"):
        out = tmp_path / str(len(images))
        Synthesize(out=out, appearance=appearance).apply(run, silent)
        images.append(np.asarray(Image.open(out / "seq-99/frame-000000.color.png")).astype(int))
    assert (images[0] == images[1]).all()
    assert (images[0] != images[2]).any()
    assert (images[0] != images[3]).any()


def test_settings_that_cannot_be():
    for wrong, message in (({"chunk": 0}, "chunk: found 0"), ({"size": (0, 4)}, "size: found 0")):
        with pytest.raises(DataError, match=message):
            Synthesize(**wrong)


def test_depth_along_the_axis_is_that_of_a_plane():
    cameras = around(2)
    x, y = np.meshgrid(np.arange(32) + 0.5, np.arange(24) + 0.5)
    distance = 5 * np.sqrt(1 + ((x - 16) / 32) ** 2 + ((y - 12) / 32) ** 2)
    along = sequence_files.distance_to_axial_depth(torch.from_numpy(distance).float(), cameras, 1)
    torch.testing.assert_close(along, torch.full((24, 32), 5.0))
