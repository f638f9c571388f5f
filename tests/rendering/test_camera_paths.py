import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from lumifield.data.scene import Frame, Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras, pinhole_cameras
from lumifield.geometry.poses import focus_point, look_at
from lumifield.geometry.rays import Ndc
from lumifield.rendering import camera_paths

UP = torch.tensor([0.0, 0.0, 1.0])
CENTER = torch.tensor([0.4, -0.3, 0.2])


def scene(c2w: torch.Tensor, ndc: Ndc | None = None, frame: Frame | None = None) -> Scene:
    n = len(c2w)
    return Scene(
        cameras=pinhole_cameras(c2w, 60.0, (64, 48)),
        names=tuple(map(str, range(n))),
        near=torch.full((n,), 1.0),
        far=torch.full((n,), 6.0),
        box=torch.tensor([[-1.0] * 3, [1.0] * 3]),
        frame=frame or Frame.identity(),
        ndc=ndc,
    )


def inward(**options) -> Scene:
    """Cameras all round, 30 degrees above the center, 4 away, unevenly spaced."""
    angle = torch.tensor([0.2, 0.5, 0.9, 2.0, 3.3, 4.0, 5.1])
    level = 4 * math.cos(math.pi / 6)
    offsets = torch.stack([level * angle.cos(), level * angle.sin(), torch.full_like(angle, 2.0)], -1)
    return scene(look_at(CENTER + offsets, -offsets, UP), **options)


def forward() -> Scene:
    """A grid of cameras that look along +z of the scene, y down."""
    x, y = torch.meshgrid(torch.linspace(-0.3, 0.3, 5), torch.linspace(-0.2, 0.2, 3), indexing="ij")
    positions = torch.stack([x.flatten(), y.flatten(), 0.1 * x.flatten()], -1)
    c2w = look_at(positions, torch.tensor([[0.0, 0.0, 1.0]]).repeat(15, 1), torch.tensor([0.0, -1.0, 0.0]))
    return scene(c2w, Ndc((60.0, 60.0), (64, 48)))


CLOSED = [camera_paths.spiral_path, camera_paths.orbit_path, camera_paths.spheric_path]


def assert_rotations(c2w: torch.Tensor) -> None:
    rotation = c2w[:, :, :3]
    torch.testing.assert_close(rotation.transpose(1, 2) @ rotation, torch.eye(3).expand_as(rotation), atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(len(rotation)), atol=1e-5, rtol=0)


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("make", [inward, forward])
@pytest.mark.parametrize("frames", [1, 7, 60])
def test_paths_are_cameras_of_the_scene(path, make, frames):
    cameras = path(make(), frames)
    assert len(cameras) == frames
    assert_rotations(cameras.c2w)
    assert cameras.size.tolist() == [[64, 48]] * frames
    assert bool((cameras.focal == 60).all())


@pytest.mark.parametrize("path", CLOSED)
@pytest.mark.parametrize("make", [inward, forward])
def test_closed_paths_join(path, make):
    """The step from the last frame to the first is like all the others."""
    positions = path(make(), 240).positions
    steps = (positions - positions.roll(1, 0)).norm(dim=-1)
    assert float(steps[0]) <= 1.05 * float(steps[1:].max())
    assert float(steps.max()) < 0.1 * float(torch.cdist(positions, positions).max())


@pytest.mark.parametrize("path", CLOSED)
def test_the_focus_is_in_the_middle_of_every_frame(path):
    seen, depth = path(inward(), 24).project(CENTER[None])
    assert bool((depth > 0).all())
    torch.testing.assert_close(seen[:, 0], torch.tensor([[32.0, 24.0]]).expand(24, 2), atol=1e-2, rtol=0)


def test_an_orbit_keeps_the_mean_distance_and_elevation():
    cameras = camera_paths.orbit_path(inward(), 16)
    offsets = cameras.positions - CENTER
    torch.testing.assert_close(offsets.norm(dim=-1), torch.full((16,), 4.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(offsets[:, 2], torch.full((16,), 2.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(cameras.positions[0], inward().cameras.positions[0], atol=1e-4, rtol=0)
    assert float(cameras.c2w[:, 2, 0].abs().max()) < 1e-5


def test_a_spheric_path_looks_down_from_36_degrees():
    offsets = camera_paths.spheric_path(inward(), 16).positions - CENTER
    torch.testing.assert_close(offsets[:, 2], torch.full((16,), 4 * math.sin(math.radians(36))), atol=1e-4, rtol=0)


def test_an_overview_looks_at_the_middle_from_where_the_cameras_are_on_average():
    low = inward()
    # One camera lies on its back, far below the others.
    first = look_at(CENTER + torch.tensor([[0.0, 4.0, -0.5]]), torch.tensor([[0.0, -4.0, 0.5]]), UP)
    capture = scene(torch.cat([first, low.cameras.c2w]))
    cameras = camera_paths.overview_camera(capture)
    (seen,), depth = cameras.project(CENTER[None])
    torch.testing.assert_close(seen, torch.tensor([[32.0, 24.0]]), atol=0.1, rtol=0)
    assert float(depth) == pytest.approx(4, abs=0.05)
    assert float(cameras.positions[0, 2] - CENTER[2]) == pytest.approx((7 * 2 - 0.5) / 8, abs=0.1)


def test_the_overview_of_a_forward_facing_scene_is_its_average_camera():
    capture = forward()
    cameras = camera_paths.overview_camera(capture)
    torch.testing.assert_close(cameras.positions[0], capture.cameras.positions.mean(0))
    torch.testing.assert_close(cameras.forward[0], torch.tensor([0.0, 0.0, 1.0]))
    assert cameras.size.tolist() == [[64, 48]]


def test_the_spiral_of_a_forward_facing_scene_by_the_formula():
    capture = forward()
    cameras = camera_paths.spiral_path(capture, 8)
    radii = np.quantile(np.abs(capture.cameras.positions.numpy()), 0.9, axis=0)
    angle = 4 * math.pi * 3 / 8
    expected = np.array([math.cos(angle), math.sin(angle), math.sin(angle / 2)]) * radii
    np.testing.assert_allclose(cameras.positions[3].numpy(), expected, atol=1e-6)
    # The nearest depth is 4/3 and the farthest infinity: 1 / (0.25 / 1.2) = 4.8.
    seen, depth = cameras.project(torch.tensor([[0.0, 0.0, 4.8]]))
    torch.testing.assert_close(seen[:, 0], torch.tensor([[32.0, 24.0]]).expand(8, 2), atol=1e-3, rtol=0)
    assert bool((depth > 4).all())


def test_a_spiral_elsewhere_stays_near_the_first_camera():
    capture = inward()
    away = (camera_paths.spiral_path(capture, 30).positions - capture.cameras.positions[0]).norm(dim=-1)
    assert float(away.max()) < 0.2 * 4


def test_cameras_above_the_focus_have_an_orbit():
    c2w = look_at(torch.tensor([[0.0, 0.0, 3.0]]), torch.tensor([[0.0, 0.0, -1.0]]), torch.tensor([0.0, 1.0, 0.0]))
    assert_rotations(camera_paths.orbit_path(scene(c2w), 5).c2w)


def keys() -> Cameras:
    cameras = inward().cameras[[0, 1, 2, 3]]
    return replace(cameras, focal=torch.tensor([[60.0, 60.0], [80.0, 80.0], [50.0, 55.0], [60.0, 60.0]]))


def test_interpolation_passes_through_its_keys():
    cameras = camera_paths.interpolate_cameras(keys(), 10)
    torch.testing.assert_close(cameras.c2w[::3], keys().c2w, atol=1e-5, rtol=0)
    torch.testing.assert_close(cameras.focal[::3], keys().focal, atol=1e-3, rtol=0)
    assert_rotations(cameras.c2w)


def test_interpolation_is_smooth():
    """Neither the path nor the viewing direction has a kink at a key."""
    cameras = camera_paths.interpolate_cameras(keys(), 3 * 200 + 1)
    for track in (cameras.positions, cameras.forward):
        speed = track.diff(dim=0)
        bend = speed.diff(dim=0).norm(dim=-1)
        at_keys = bend[torch.tensor([199, 399])].max()
        assert float(at_keys) < 1.5 * float(bend.quantile(0.95))


def test_interpolation_between_two_cameras_turns_evenly():
    c2w = look_at(torch.zeros(2, 3), torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), UP)
    middle = camera_paths.interpolate_cameras(pinhole_cameras(c2w, 60.0, (64, 48)), 3)
    torch.testing.assert_close(middle.forward[1], torch.tensor([0.5**0.5, 0.5**0.5, 0.0]), atol=1e-5, rtol=0)


def test_interpolation_goes_round_what_all_cameras_look_at():
    cameras = camera_paths.interpolate_cameras(keys()[[0, 2]], 41)
    seen, depth = cameras.project(CENTER[None])
    assert float((seen[:, 0] - cameras.center).abs().max()) < 1e-2
    torch.testing.assert_close(depth[:, 0], torch.full((41,), float(depth[0])), atol=1e-3, rtol=0)


def test_interpolation_goes_straight_between_cameras_that_look_at_no_common_point():
    apart = look_at(torch.tensor([[0.0, 0, 0], [2, 0, 0]]), torch.tensor([[-1.0, 1, 0], [1.0, 1, 0]]), UP)
    beside = look_at(torch.tensor([[0.0, 0, 0], [2, 0, 0]]), torch.tensor([[0.0, 1, 0], [0.0, 1, 0]]), UP)
    for c2w in (apart, beside):
        middle = camera_paths.interpolate_cameras(pinhole_cameras(c2w, 60.0, (64, 48)), 3).positions[1]
        torch.testing.assert_close(middle, torch.tensor([1.0, 0, 0]), atol=1e-5, rtol=0)


def test_interpolation_of_one_camera_stands_still():
    cameras = camera_paths.interpolate_cameras(keys()[[1]], 4)
    assert torch.equal(cameras.c2w, keys().c2w[[1] * 4])


def test_a_tour_passes_through_the_frames_of_its_cameras():
    two = keys()[[0, 1]]
    two = replace(two, size=torch.tensor([[64, 48], [100, 120]]), center=torch.tensor([[32.0, 24.0], [50.0, 61.0]]))
    frames = camera_paths.tour_path(two, 5)
    assert frames.size.tolist() == [[64, 48], [73, 66], [82, 84], [91, 102], [100, 120]]
    for name in ("focal", "center", "c2w"):
        torch.testing.assert_close(getattr(frames[[0, 4]], name), getattr(two, name), atol=1e-4, rtol=0)
    assert camera_paths.tour_path(two[[1]], 3).size.tolist() == [[100, 120]] * 3


def test_interpolation_keeps_the_angle_of_view_of_each_size():
    two = keys()[[0, 1]]
    two = replace(two, size=torch.tensor([[64, 48], [128, 96]]), center=torch.tensor([[32.0, 24.0], [64.0, 48.0]]))
    last = camera_paths.interpolate_cameras(two, 5)[[4]]
    assert last.size.tolist() == [[64, 48]]
    assert last.focal[0].tolist() == pytest.approx([40, 40])
    assert last.center[0].tolist() == pytest.approx([32, 24])


def moved_frame() -> Frame:
    turn = look_at(torch.zeros(1, 3), torch.tensor([[1.0, 2.0, 3.0]]), UP)[0, :, :3]
    return Frame(turn, torch.tensor([10.0, -5.0, 2.0]), 2.5)


def test_a_path_written_and_read_is_the_same(tmp_path):
    capture = inward(frame=moved_frame())
    cameras = replace(keys(), distortion=torch.full((4, 4), 0.01), center=torch.full((4, 2), 20.5))
    (tmp_path / "path.json").write_text(camera_paths.format_camera_path(cameras, capture.frame))
    again = camera_paths.read_camera_path(tmp_path / "path.json", capture)
    for name in ("c2w", "focal", "center", "size", "distortion"):
        torch.testing.assert_close(getattr(again, name), getattr(cameras, name), atol=1e-5, rtol=1e-5, msg=name)


def test_a_path_file_is_in_the_world_frame_and_opencv_axes(tmp_path):
    capture = inward(frame=moved_frame())
    content = json.loads(camera_paths.format_camera_path(capture.cameras[[0]], capture.frame))
    world = moved_frame().to_world(capture.cameras.positions[0])
    np.testing.assert_allclose(np.array(content[0]["c2w"])[:3, 3], world.numpy(), atol=1e-5)
    assert content[0]["c2w"][3] == [0, 0, 0, 1]


def test_the_shortest_path_file(tmp_path):
    path = tmp_path / "path.json"
    path.write_text(json.dumps([{"c2w": np.eye(4).tolist(), "fov": 90, "width": 40, "height": 30}]))
    cameras = camera_paths.read_camera_path(path, inward())
    assert cameras.focal[0].tolist() == pytest.approx([20, 20])
    assert cameras.center.tolist() == [[20, 15]]
    assert cameras.size.tolist() == [[40, 30]]


def one(**changes) -> list:
    camera = {"c2w": np.eye(4).tolist(), "focal": 50.0, "width": 40, "height": 30} | changes
    return [{key: value for key, value in camera.items() if value != "absent"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"content: found invalid JSON \(Expecting property name enclosed in double quotes: line "),
        ("[]", "content: found no list of objects"),
        ("[3]", r"content: found no list of objects"),
        (one(c2w="absent"), r"c2w of camera 0: found .*"),
        (
            one(c2w=(2 * np.eye(4)).tolist()),
            r"c2w of camera 0: found columns that are not orthonormal and right-handed",
        ),
        (one(focal=0), "focal of camera 0: found 0"),
        (one(focal=[1.0]), r"focal of camera 0: found \[1\.0\]"),
        (one(focal="absent"), "focal or fov of camera 0: found None"),
        (one(focal="absent", fov=180), "fov of camera 0: found 180"),
        (one(width="absent"), "width of camera 0: found None"),
        (one(height=-3), "height of camera 0: found -3"),
        (one(width=40.5), r"width of camera 0: found 40\.5"),
        (one(center=[1, "a"]), "center of camera 0: found 'a'"),
        (one(distortion=[0.0]), r"distortion of camera 0: found \[0\.0\]"),
    ],
)
def test_path_files_that_cannot_be(tmp_path, content, message):
    path = tmp_path / "path.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(DataError, match=rf"path\.json: {message}"):
        camera_paths.read_camera_path(path, inward())


def test_a_missing_path_file(tmp_path):
    with pytest.raises(DataError, match=r"path\.json: file: found an error \(No such file or directory\)"):
        camera_paths.read_camera_path(tmp_path / "path.json", inward())


def test_focus_of_the_made_scene():
    torch.testing.assert_close(focus_point(inward().cameras.c2w), CENTER, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("path", "share"), [(camera_paths.orbit_path, 0.5), (camera_paths.spheric_path, 1.0)])
def test_round_a_forward_facing_scene_there_is_only_its_front(path, share):
    capture = forward()
    offsets = path(capture, 16).positions - capture.cameras.positions.mean(0)
    radius = capture.cameras.positions.sub(capture.cameras.positions.mean(0))[:, :2].norm(dim=-1).quantile(share)
    torch.testing.assert_close(offsets.norm(dim=-1), radius.expand(16), atol=0.02, rtol=0)
    seen, depth = path(capture, 16).project(torch.tensor([[0.0, 0.0, 4.8]]))
    torch.testing.assert_close(seen[:, 0], torch.tensor([[32.0, 24.0]]).expand(16, 2), atol=0.05, rtol=0)
    assert bool((depth > 4).all())
    assert float(path(capture, 16).c2w[:, 1, 1].min()) > 0.9


@pytest.mark.parametrize("path", [camera_paths.orbit_path, camera_paths.spheric_path])
@pytest.mark.parametrize("turned", [0.0, 2.0, 3.1, -2.5])
def test_a_one_sided_capture_is_not_gone_round(path, turned):
    """Cameras over 100 degrees: the path stays among them, goes to both ends, and is closed."""
    bearing = turned + torch.tensor([0.3, -0.87, 0.87, 0.0])
    offsets = torch.stack([3 * bearing.cos(), 3 * bearing.sin(), torch.full_like(bearing, 1.0)], -1)
    positions = path(scene(look_at(CENTER + offsets, -offsets, UP)), 120).positions
    away = positions - CENTER
    found = (torch.atan2(away[:, 1], away[:, 0]) - turned + math.pi) % (2 * math.pi) - math.pi
    assert float(found.max()) == pytest.approx(0.87, abs=0.02)
    assert float(found.min()) == pytest.approx(-0.87, abs=0.02)
    steps = (positions - positions.roll(1, 0)).norm(dim=-1)
    assert float(steps[0]) <= 1.05 * float(steps[1:].max())


def test_one_camera_is_enough_to_go_round():
    c2w = look_at(torch.tensor([[3.0, 0.0, 1.0]]), torch.tensor([[-3.0, 0.0, -1.0]]), UP)
    positions = camera_paths.orbit_path(scene(c2w), 40).positions
    assert float(torch.cdist(positions, positions).max()) > 3


def test_shares_of_neighbors_are_means_that_hit_what_is_known():
    known = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    places = torch.cat([known, known[:2] + 0.1, torch.full((1, 3), 1e6)])
    shares = camera_paths.inverse_distance_weights(places, known)
    torch.testing.assert_close(shares.sum(-1), torch.ones(9))
    torch.testing.assert_close(shares[:6], torch.eye(6))
    expected = torch.tensor([[1 / (place - each).norm() ** 4 for each in known] for place in places[6:8]])
    torch.testing.assert_close(shares[6:8], expected / expected.sum(-1, keepdim=True))
    torch.testing.assert_close(shares[8], torch.full((6,), 1 / 6), atol=1e-4, rtol=0)
    assert camera_paths.inverse_distance_weights(places[:0], known).shape == (0, 6)
    twins = camera_paths.inverse_distance_weights(known[:1], known[[0, 0, 1]])
    torch.testing.assert_close(twins, torch.tensor([[0.5, 0.5, 0.0]]))
