import math
from dataclasses import replace

import pytest
import torch

from analytic import CPU, Ball, Wall, around, scene_of
from lumifield.data.scene import Frame, Images
from lumifield.geometry.cameras import pinhole_cameras
from lumifield.geometry.rays import Ndc, image_rays
from lumifield.rendering.view import Normals, RenderedView, default_chunk, render_view, view_psnr
from lumifield.runtime.image_io import to_uint8
from lumifield.runtime.image_metrics import PSNR_LIMIT


def pictured(scene, pixels, mask=None):
    flat = pixels.reshape(-1, pixels.shape[-1])
    return replace(scene, images=Images(flat, torch.tensor([0, len(flat)]), mask))


def test_a_view_has_the_shape_of_its_camera_and_the_backdrop_of_its_scene():
    view = render_view(Ball(), scene_of(around(2, (9, 5))), 1, device=CPU)
    assert view.rgb.shape == (5, 9, 3)
    assert view.depth.shape == view.opacity.shape == (5, 9)
    assert view.rgb[0, 0].tolist() == [1, 1, 1]
    assert view.seconds > 0


def test_a_view_does_not_depend_on_the_chunk():
    scene = scene_of(around(1, (9, 7)))
    whole, pieces = (render_view(Ball(), scene, 0, device=CPU, chunk=chunk) for chunk in (None, 10))
    assert torch.equal(whole.rgb, pieces.rgb)
    assert torch.equal(whole.depth, pieces.depth)
    method = Ball()
    render_view(method, scene, 0, device=CPU, chunk=10)
    assert method.calls == 7


def test_chunks_are_larger_on_an_accelerator():
    assert default_chunk(torch.device("cuda")) > default_chunk(CPU)


def test_depth_is_in_world_units():
    c, s = math.cos(0.3), math.sin(0.3)
    frame = Frame(torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]]), torch.tensor([5.0, -2.0, 1.0]), 2.5)
    scene = scene_of(around(3), frame=frame)
    view = render_view(Ball(), scene, 1, device=CPU)
    directions = scene.rays(1).directions.reshape(*view.depth.shape, 3) @ frame.rotation.T
    eye = frame.to_world(scene.cameras.positions[1])
    radius = (eye + view.depth[..., None] * directions - frame.translation).norm(dim=-1)
    assert int(view.hit_mask.sum()) > 30
    torch.testing.assert_close(radius[view.hit_mask], torch.full((int(view.hit_mask.sum()),), 2.5))


def test_depth_of_normalized_device_coordinates_is_that_of_the_plane():
    distance, plane = 7.0, 1.0
    ndc = Ndc((40.0, 40.0), (32, 24), plane)
    pose = torch.eye(4)[None, :3].clone()
    pose[0, :, 3] = torch.tensor([0.2, -0.1, -0.5])
    frame = Frame(torch.eye(3), torch.zeros(3), 3.0)
    scene = replace(scene_of(pinhole_cameras(pose, 40.0, (32, 24)), frame=frame, ndc=ndc), near=torch.zeros(1))
    view = render_view(Wall(1 - 2 * plane / distance), scene, 0, device=CPU)
    unwarped = image_rays(scene.cameras, 0, scene.near, scene.far)
    expected = 3.0 * (distance + 0.5) / unwarped.directions[:, 2].reshape(24, 32)
    torch.testing.assert_close(view.depth, expected, rtol=1e-4, atol=0)


def test_depth_is_measured_only_where_there_is_matter():
    view = RenderedView(
        torch.zeros(1, 4, 3),
        torch.tensor([[2.0, 3.0, math.nan, math.inf]]),
        torch.tensor([[0.9, 0.5, 1.0, 1.0]]),
        0.0,
    )
    assert view.hit_mask.tolist() == [[True, False, True, True]]
    assert view.measured_depth.tolist() == [[2.0, 0.0, 0.0, 0.0]]


def test_the_depth_image_fades_with_the_opacity():
    view = RenderedView(torch.zeros(1, 3, 3), torch.tensor([[2.0, 4.0, 4.0]]), torch.tensor([[1.0, 1.0, 0.0]]), 0.0)
    near, far, nothing = view.depth_image(2.0, 4.0)[0].int()
    assert near[2] > near[1]
    assert far[0] > far[2]
    assert nothing.tolist() == [0, 0, 0]


def test_bands_come_round_when_the_depth_has_grown_by_a_tenth():
    depth = torch.tensor([[2.0, 2.2, 2.1, 0.0, 2.0]])
    opacity = torch.tensor([[1.0, 1.0, 1.0, 1.0, 0.0]])
    first, again, between, here, nothing = (
        RenderedView(torch.zeros(1, 5, 3), depth, opacity, 0.0).bands_image()[0].int()
    )
    assert int((first - again).abs().max()) <= 1
    assert int((first - between).abs().max()) > 60
    assert not nothing.any()
    assert here.any()


def test_psnr_of_a_view_is_that_of_the_rounded_images():
    scene = scene_of(around(1))
    view = render_view(Ball(), scene, 0, device=CPU)
    pixels = to_uint8(view.rgb)
    assert view_psnr(view, pictured(scene, pixels), 0) == PSNR_LIMIT
    off = pixels.clone()
    off[..., 0] = torch.where(off[..., 0] > 127, off[..., 0] - 30, off[..., 0] + 30)
    assert view_psnr(view, pictured(scene, off), 0) == pytest.approx(-10 * math.log10((30 / 255) ** 2 / 3), abs=1e-4)


def test_psnr_of_a_view_counts_the_mask_alone():
    scene = scene_of(around(1))
    view = render_view(Ball(), scene, 0, device=CPU)
    pixels = to_uint8(view.rgb)
    pixels[:12] = 255 - pixels[:12]
    mask = torch.zeros(24 * 32, dtype=torch.bool)
    assert view_psnr(view, pictured(scene, pixels, mask), 0) is None
    mask[12 * 32 :] = True
    assert view_psnr(view, pictured(scene, pixels, mask), 0) == PSNR_LIMIT


def moved() -> Frame:
    c, s = math.cos(0.3), math.sin(0.3)
    return Frame(torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]]), torch.tensor([5.0, -2.0, 1.0]), 2.5)


def degrees(a, b):
    return torch.rad2deg(torch.linalg.cross(a, b).norm(dim=-1).atan2((a * b).sum(-1)))


@pytest.mark.parametrize(("source", "worst"), [("density", 4.0), ("depth", 4.0)])
def test_normals_of_a_ball_are_in_world_axes(source, worst):
    scene = scene_of(around(3, (64, 48)), frame=moved())
    view = render_view(Ball(), scene, 1, device=CPU, normals=Normals.for_training_scene(scene, source))
    truth = (view.rgb * 2 - 1) @ moved().rotation.T
    # Depth says nothing of the surface within reach of the silhouette.
    met = view.hit_mask & ((view.rgb * 2 - 1) @ -scene.cameras.forward[1] > 0.75)
    assert int(met.sum()) > 200
    assert float(degrees(view.normal, truth)[met].max()) < worst
    assert bool((view.normal[met].norm(dim=-1) - 1).abs().max() < 1e-5)


@pytest.mark.parametrize("source", ["density", "depth"])
def test_normals_of_a_wall_in_normalized_device_coordinates_are_those_of_space(source):
    ndc = Ndc((40.0, 40.0), (32, 24), 1.0)
    pose = torch.eye(4)[None, :3].clone()
    pose[0, :, 3] = torch.tensor([0.2, -0.1, -0.5])
    scene = replace(scene_of(pinhole_cameras(pose, 40.0, (32, 24)), frame=moved(), ndc=ndc), near=torch.zeros(1))
    view = render_view(Wall(1 - 2 / 7), scene, 0, device=CPU, normals=Normals.for_training_scene(scene, source))
    expected = moved().rotation @ torch.tensor([0.0, 0.0, -1.0])
    assert float(degrees(view.normal, expected.expand_as(view.normal)).max()) < 1


def test_a_slope_that_is_learned_in_normalized_device_coordinates_has_its_normal_in_space():
    ndc = Ndc((40.0, 30.0), (32, 24), 1.0)
    normal = torch.tensor([0.48, -0.6, -0.64])

    class Slope(Ball):
        def density(self, points):
            z = 2 * ndc.plane / (1 - points[:, 2])
            x, y = points[:, 0] * z * 32 / 80, -points[:, 1] * z * 24 / 60
            return torch.exp(-5 * torch.stack([x, y, z - 5], -1) @ normal)

    points = torch.tensor([[0.5, 0.2, 5.0], [-1.0, 0.4, 4.0], [0.0, 0.0, 7.0]])
    found = Slope().normals(points, torch.full((3,), 0.05), ndc)
    torch.testing.assert_close(found, normal.expand(3, 3), atol=1e-3, rtol=0)


def test_normals_of_a_density_are_sought_only_where_something_is_seen():
    scene = scene_of(around(1, (64, 48)))
    view = render_view(Ball(), scene, 0, device=CPU, normals=Normals.for_training_scene(scene))
    assert bool((view.normal[~view.hit_mask] == 0).all())
    assert bool((view.normal_image()[~view.hit_mask] == 0).all())
    front = view.normal_image()[24, 32]
    assert front.tolist() == pytest.approx([255, 128, 128], abs=4)


def test_normals_do_not_depend_on_the_chunk():
    scene = scene_of(around(1, (9, 7)))
    normals = Normals.for_training_scene(scene)
    whole, pieces = (render_view(Ball(), scene, 0, device=CPU, chunk=c, normals=normals) for c in (None, 10))
    assert torch.equal(whole.normal, pieces.normal)


@pytest.mark.parametrize("source", ["density", "depth"])
def test_normals_are_not_finer_than_the_training_images(source):
    """An image four times as large asks about the same neighborhoods."""
    trained, large = scene_of(around(1, (32, 24))), scene_of(around(1, (128, 96)))
    steps = []

    class Noted(Ball):
        def normals(self, points, step, ndc):
            steps.append(float(step.median()))
            return super().normals(points, step, ndc)

    normals = Normals.for_training_scene(trained, source)
    views = [render_view(Noted(), scene, 0, device=CPU, normals=normals) for scene in (trained, large)]
    if source == "density":
        assert steps[0] == pytest.approx(steps[-1], rel=0.05)
    small, fine = views[0].normal, views[1].normal.reshape(24, 4, 32, 4, 3).mean((1, 3))
    assert float(degrees(small, fine)[views[0].hit_mask].median()) < 2


def test_a_view_without_normals_has_none():
    assert render_view(Ball(), scene_of(around(1)), 0, device=CPU).normal is None
