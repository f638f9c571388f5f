import re
import struct
import subprocess
from dataclasses import replace

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from analytic import CPU, Ball, around, photograph, run_of, scene_of
from lumifield.data import Source
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras, pinhole_cameras
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Method, RenderContext, Rendered
from lumifield.rendering import camera_paths, render
from lumifield.rendering.view import render_view
from lumifield.runtime.image_io import read_pfm, to_uint8
from scenes import cut_off


class Sheet(Method):
    """One color everywhere."""

    color = (0.8, 0.3, 0.1)

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        rgb = torch.tensor(self.color).expand(len(rays), 3)
        return Rendered(rgb, rays.near, torch.ones_like(rays.near))


class Failing(Ball):
    """Fails in the third view."""

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        if self.calls == 2:
            raise KeyboardInterrupt
        return super().forward(rays, context)


@pytest.fixture
def run(tmp_path):
    scene = scene_of(around(6), frame=Frame(torch.eye(3), torch.zeros(3), 2.0))
    return run_of(tmp_path / "run", Ball(), {"train": scene, "test": replace(scene, cameras=around(6, (33, 25)))})


def decoded(path):
    """The frames of a video, and what ffmpeg says of it."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", path, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    about = done.stderr.decode()
    width, height = map(int, re.search(r"Video: .* (\d+)x(\d+)", about).groups())
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3), about


def approaching(*distances):
    """Cameras on one line to the ball."""
    return pinhole_cameras(torch.cat([around(1, distance=d).c2w for d in distances]), 32.0, (32, 24))


@pytest.mark.parametrize("path", ["spiral", "orbit", "spheric", "interpolate"])
def test_paths_have_as_many_frames_as_asked(run, path):
    cameras = render.make_path_cameras(run, path, 7)
    assert len(cameras) == 7
    assert cameras.c2w.isfinite().all()


def test_the_test_path_is_the_test_cameras(run):
    assert torch.equal(render.make_path_cameras(run, "test", 99).c2w, run.scenes["test"].cameras.c2w)


def test_interpolation_takes_the_training_cameras_where_there_is_no_test_split(run):
    run = replace(run, scenes={"train": run.scenes["train"]})
    assert render.make_path_cameras(run, "interpolate", 3).size[0].tolist() == [32, 24]


def test_a_way_leads_through_the_photographs_that_are_named(run):
    train = run.scenes["train"]
    for path in ("interpolate", "tour"):
        way = render.make_path_cameras(run, path, 5, through=(train.names[4], "mean", train.names[1], train.names[4]))
        torch.testing.assert_close(way.c2w[::2], train.cameras.c2w[[4, 1, 4]])
        assert torch.equal(
            render.make_path_cameras(run, path, 5, through=train.names[:1]).c2w,
            render.make_path_cameras(run, path, 5).c2w,
        )
    assert torch.equal(
        render.make_path_cameras(run, "spiral", 5, through=train.names[:2]).c2w,
        render.make_path_cameras(run, "spiral", 5).c2w,
    )


def test_a_way_through_a_photograph_that_there_is_not_is_one_sentence(run):
    with pytest.raises(DataError, match="'dusk'"):
        render.make_path_cameras(run, "tour", 5, through=(run.scenes["train"].names[0], "dusk"))


def test_a_path_of_a_file_is_in_the_world(run, tmp_path):
    path = tmp_path / "path.json"
    path.write_text(camera_paths.format_camera_path(around(4, distance=3.0), run.scenes["train"].frame))
    cameras = render.make_path_cameras(run, path, 1)
    torch.testing.assert_close(cameras.c2w, around(4, distance=3.0).c2w)


def test_another_size_keeps_the_vertical_angle_of_view():
    cameras = render.with_image_size(around(2, (32, 24)), (96, 48))
    assert cameras.size.tolist() == [[96, 48]] * 2
    assert cameras.focal.tolist() == [[64, 64]] * 2
    assert cameras.center.tolist() == [[48, 24]] * 2


def test_a_path_in_another_size(run):
    assert render.make_path_cameras(run, "orbit", 2, (10, 8)).size.tolist() == [[10, 8]] * 2


@pytest.mark.parametrize(
    ("path", "frames", "message"),
    [
        ("zigzag", 5, "camera path: found 'zigzag'"),
        ("orbit", 0, "number of frames: found 0"),
        ("none.json", 5, "file: found an error"),
    ],
)
def test_unusable_paths_are_one_sentence(run, path, frames, message):
    with pytest.raises(DataError, match=message):
        render.make_path_cameras(run, path, frames)


def test_a_run_without_test_cameras_has_no_test_path(run):
    with pytest.raises(DataError, match="split 'test': found"):
        render.make_path_cameras(replace(run, scenes={"train": run.scenes["train"]}), "test", 1)


def test_paths_are_rendered_between_the_bounds_of_the_photographs_about_them(run):
    train = run.scenes["train"]
    near = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 90.0])
    run = replace(run, scenes={"train": replace(train, near=near, far=near + 100)})
    scene = render.scene_of_cameras(run, train.cameras[[4, 1]])
    assert scene.near.tolist() == [5, 2]
    assert scene.far.tolist() == [105, 102]
    assert scene.background == "white"
    assert scene.names == ("0000", "0001")


@pytest.mark.parametrize(("size", "stored"), [((32, 24), (32, 24)), ((33, 25), (34, 26)), ((1, 1), (2, 2))])
def test_an_mp4_has_every_frame_even_sides_and_the_colors(run, tmp_path, size, stored):
    render.render_camera_path(replace(run, method=Sheet()), around(5, size), tmp_path / "a.mp4", fps=24)
    frames, about = decoded(tmp_path / "a.mp4")
    assert len(frames) == 5
    assert frames.shape[1:3] == stored[::-1]
    assert "24 fps" in about
    assert "h264" in about
    assert "yuv420p(tv, bt709, progressive)" in about
    for frame in frames:
        np.testing.assert_allclose(frame.mean((0, 1)), np.array(Sheet.color) * 255, atol=6)


def test_an_mp4_shows_what_the_views_show(run, tmp_path):
    cameras = around(3, (64, 48))
    render.render_camera_path(run, cameras, tmp_path / "a.mp4")
    frames, _ = decoded(tmp_path / "a.mp4")
    for index, frame in enumerate(frames):
        expected = to_uint8(render_view(Ball(), render.scene_of_cameras(run, cameras), index, device=CPU).rgb)
        assert np.abs(frame.astype(int) - expected.numpy().astype(int)).mean() < 6


def test_a_gif_has_every_frame_and_repeats(run, tmp_path):
    render.render_camera_path(run, around(4, (31, 23)), tmp_path / "a.gif", fps=10)
    with Image.open(tmp_path / "a.gif") as film:
        assert (film.n_frames, film.size, film.info["loop"], film.info["duration"]) == (4, (31, 23), 0, 100)
        film.seek(2)
        shown = np.asarray(film.convert("RGB")).astype(int)
    scene = render.scene_of_cameras(run, around(4, (31, 23)))
    expected = to_uint8(render_view(Ball(), scene, 2, device=CPU).rgb).numpy()
    assert np.abs(shown - expected).mean() < 6


def test_a_name_without_ending_becomes_a_folder_of_images(run, tmp_path):
    shown = []
    render.render_camera_path(
        run, around(3), tmp_path / "film", progress=lambda done, total: shown.append((done, total))
    )
    assert sorted(path.name for path in (tmp_path / "film").iterdir()) == ["0000.png", "0001.png", "0002.png"]
    expected = to_uint8(render_view(Ball(), render.scene_of_cameras(run, around(3)), 1, device=CPU).rgb)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "film" / "0001.png")), expected.numpy())
    assert shown == [(1, 3), (2, 3), (3, 3)]


def test_a_shorter_film_leaves_nothing_of_a_longer_one(run, tmp_path):
    for frames in (4, 2):
        render.render_camera_path(run, around(frames), tmp_path / "film", depth_format="npy")
    assert len(list((tmp_path / "film").iterdir())) == len(list((tmp_path / "film_depth").iterdir())) == 2


def test_channels_stand_side_by_side(run, tmp_path):
    render.render_camera_path(
        run, around(2), tmp_path / "film", options=render.RenderOptions(("rgb", "depth", "opacity"))
    )
    frame = np.asarray(Image.open(tmp_path / "film" / "0000.png"))
    assert frame.shape == (24, 96, 3)
    opacity = frame[:, 64:]
    assert set(np.unique(opacity)) == {0, 255}
    assert (frame[:, 32:64][opacity == 0] == 0).all()
    assert (frame[:, :32][opacity == 0] == 255).all()


def test_normals_of_a_ball_are_shown_as_colors(run, tmp_path):
    """The ball is colored by its normals already, over white; normals are shown over black."""
    render.render_camera_path(
        run, around(2, (64, 48)), tmp_path / "film", options=render.RenderOptions(("rgb", "normal"))
    )
    frame = np.asarray(Image.open(tmp_path / "film" / "0001.png")).astype(int)
    color, normal = frame[:, :64], frame[:, 64:]
    met = (normal > 0).any(-1)
    assert (color[~met] == 255).all()
    assert np.abs(color - normal)[met].max() < 20
    assert met.sum() > 500


def test_normals_can_be_read_from_the_depth(run, tmp_path):
    for source in ("density", "depth"):
        render.render_camera_path(
            run, around(1, (64, 48)), tmp_path / source, options=render.RenderOptions(("normal",), source)
        )
        render.render_split_view(
            run, "test", 0, tmp_path / f"{source}_view", options=render.RenderOptions(normals=source)
        )
    for names in (("density/0000.png", "depth/0000.png"), ("density_view/000_normal.png", "depth_view/000_normal.png")):
        a, b = (np.asarray(Image.open(tmp_path / name)).astype(int) for name in names)
        assert (a != b).any()
        assert np.median(np.abs(a - b)[(a > 0).any(-1)]) < 12


def test_normals_are_the_same_where_frames_go_over_the_disk(run, tmp_path):
    """Depth needs all frames before the first can be shown."""
    for name, channels in (("straight", ("normal",)), ("spooled", ("depth", "normal"))):
        render.render_camera_path(run, around(2), tmp_path / name, options=render.RenderOptions(channels))
    straight, spooled = (np.asarray(Image.open(tmp_path / name / "0001.png")) for name in ("straight", "spooled"))
    assert np.array_equal(straight, spooled[:, 32:])


def test_depth_has_one_range_of_colors_for_the_whole_film(run, tmp_path):
    render.render_camera_path(run, approaching(3.0, 5.5), tmp_path / "film", options=render.RenderOptions(("depth",)))
    near, far = (np.asarray(Image.open(tmp_path / "film" / f"000{i}.png"))[12, 16].astype(int) for i in (0, 1))
    assert near[2] > near[0]
    assert far[0] > far[2]


def test_frames_of_other_sizes_stand_in_the_middle_of_the_canvas(run, tmp_path):
    small, large = around(1, (10, 8)), around(1, (20, 12))
    both = Cameras(
        *(torch.cat([getattr(c, f) for c in (small, large)]) for f in ("c2w", "focal", "center", "size", "distortion"))
    )
    render.render_camera_path(replace(run, method=Sheet()), both, tmp_path / "film")
    first = np.asarray(Image.open(tmp_path / "film" / "0000.png"))
    assert first.shape == (12, 20, 3)
    assert (first[2:10, 5:15] == to_uint8(torch.tensor(Sheet.color)).numpy()).all()
    assert first.sum() == first[2:10, 5:15].sum()


@pytest.mark.parametrize("depth_format", ["npy", "pfm", "bytes"])
def test_raw_depth_is_beside_the_film_in_world_units(run, tmp_path, depth_format):
    render.render_camera_path(run, around(2, (33, 25)), tmp_path / "a.mp4", depth_format=depth_format)
    path = tmp_path / "a_depth" / f"0001.{depth_format}"
    match depth_format:
        case "npy":
            depth = np.load(path)
        case "pfm":
            depth = read_pfm(path).numpy()
        case _:
            depth = np.array(struct.unpack(f"<{25 * 33}f", path.read_bytes()), np.float32).reshape(25, 33)
    assert depth.shape == (25, 33)
    assert depth[12, 16] == pytest.approx(2.0 * 3.0, abs=1e-5)
    assert depth[0, 0] == 0
    view = render_view(Ball(), render.scene_of_cameras(run, around(2, (33, 25))), 1, device=CPU)
    np.testing.assert_array_equal(depth, view.measured_depth.numpy())


def test_what_was_rendered_before_a_stop_is_whole(run, tmp_path):
    for name in ("film", "a.mp4"):
        with pytest.raises(KeyboardInterrupt):
            render.render_camera_path(replace(run, method=Failing()), around(5), tmp_path / name)
    assert sorted(path.name for path in (tmp_path / "film").iterdir()) == ["0000.png", "0001.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film"]


def test_a_video_that_lacks_frames_is_an_error_and_not_kept(run, tmp_path, monkeypatch):
    monkeypatch.setattr(imageio_ffmpeg, "count_frames_and_secs", lambda path: (2, 0.1))
    with pytest.raises(DataError, match="the encoder could not finish"):
        render.render_camera_path(run, around(3), tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a.avi", r"extension: found '.avi'"),
        ("file/a.mp4", "output: found an error"),
        ("file", "output: found a file"),
        ("folder.mp4", "output: found a folder"),
    ],
)
def test_unusable_outputs_are_found_before_anything_is_rendered(run, tmp_path, name, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(DataError, match=message):
        render.render_camera_path(run, around(2), tmp_path / name)
    assert run.method.calls == 0


def test_one_view_is_written_with_its_time(run, tmp_path):
    still = render.render_split_view(run, "test", 2, tmp_path / "views")
    assert [file.name for file in still.files] == [f"002_{name}.png" for name in ("rgb", "depth", "normal", "opacity")]
    assert np.asarray(Image.open(still.files[0])).shape == (25, 33, 3)
    assert np.asarray(Image.open(still.files[3])).shape == (25, 33)
    assert still.seconds > 0
    assert still.psnr is None


def test_one_view_has_a_psnr_where_there_is_a_photograph(run, tmp_path):
    (tmp_path / "data").mkdir()
    source = photograph(tmp_path / "data", run.scenes["test"], "test")
    still = render.render_split_view(replace(run, source=source), "test", 2)
    assert still.psnr is not None
    assert still.psnr > 60
    assert still.files[0] == run.folder / "views" / "test" / "002_rgb.png"


def test_one_view_is_shown_where_the_photographs_are_gone(run, tmp_path):
    source = Source(tmp_path / "gone")
    assert render.render_split_view(replace(run, source=source), "test", 0).psnr is None


def test_a_view_that_is_not_there_is_one_sentence(run):
    with pytest.raises(DataError, match="view: found 6"):
        render.render_split_view(run, "test", 6)
    with pytest.raises(DataError, match="split 'val': found"):
        render.render_split_view(run, "val", 0)


def test_one_view_in_another_size_keeps_its_angle_and_has_no_psnr(run, tmp_path):
    (tmp_path / "data").mkdir()
    run = replace(run, source=photograph(tmp_path / "data", run.scenes["test"], "test"))
    still = render.render_split_view(run, "test", 2, tmp_path / "views", size=(66, 50))
    large = np.asarray(Image.open(still.files[0])).astype(int)
    small = np.asarray(Image.open(render.render_split_view(run, "test", 2).files[0])).astype(int)
    assert large.shape == (50, 66, 3)
    assert np.abs(large.reshape(25, 2, 33, 2, 3).mean((1, 3)) - small).mean() < 12
    assert still.psnr is None
    assert render.render_split_view(run, "test", 2, size=(33, 25)).psnr is not None


def test_one_view_reads_its_own_image_alone(run, tmp_path):
    (tmp_path / "data").mkdir()
    source = photograph(tmp_path / "data", run.scenes["test"], "test")
    for file in (tmp_path / "data").glob("*.png"):
        if "view_2" not in file.name:
            cut_off(file)
    assert render.render_split_view(replace(run, source=source), "test", 2).psnr > 60
    assert render.render_split_view(replace(run, source=source), "test", 1).psnr is None


@pytest.mark.parametrize("chunk", [1, 100])
def test_films_and_views_do_not_depend_on_the_chunk(run, tmp_path, chunk):
    pieces = replace(run, method=Ball(), chunk=chunk)
    for name, each in (("whole", run), ("pieces", pieces)):
        render.render_camera_path(each, around(2, (9, 7)), tmp_path / name)
        render.render_split_view(each, "test", 1, tmp_path / name, size=(9, 7))
    files = [sorted((tmp_path / name).iterdir()) for name in ("whole", "pieces")]
    assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]
    assert pieces.method.calls == 3 * -(-63 // chunk)
