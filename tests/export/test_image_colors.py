"""Images color only what they see; reflections and rims of other things leave little."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lumifield.data.scene import Images
from lumifield.export.image_colors import (
    PosedImage,
    SurfaceSamples,
    fill_unknown_colors,
    find_visible_samples,
    fuse_colors,
    posed_images_of,
    sample_premultiplied,
)
from lumifield.export.marching_cubes import Surface
from lumifield.geometry.cameras import pinhole_cameras
from scenes import ball

SIZE = 32


def camera(x=0.0, y=0.0):
    """A camera four units above the plane z = 0 that looks down on it; its image spans four units."""
    c2w = torch.tensor([[1.0, 0, 0, x], [0, -1, 0, y], [0, 0, -1, 4]])
    cameras = pinhole_cameras(c2w[None], float(SIZE), (SIZE, SIZE))
    return replace(cameras, c2w=cameras.c2w.double())


def plain(color, **where):
    return PosedImage(camera(**where), torch.tensor([*color, 1.0]).expand(SIZE, SIZE, 4))


def square(middle, half, z):
    """Two triangles that face up."""
    corners = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * half + middle
    return np.concatenate([corners, np.full((4, 1), z)], 1), np.array([[0, 1, 2], [0, 2, 3]])


def joined(*parts):
    offsets = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    faces = [faces + start for (_, faces), start in zip(parts, offsets, strict=False)]
    return Surface(np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces))


FLOOR = square([0, 0], 2, 0.0)
UP = np.array([0.0, 0.0, 1.0])


def samples(*points):
    return SurfaceSamples(np.array(points, float), np.tile(UP, (len(points), 1)))


def test_what_is_hidden_turned_away_or_outside_is_not_in_view():
    surface = joined(FLOOR, square([0.8, 0], 0.4, 0.5))
    there = samples([0, 0, 0], [0.8, 0, 0], [0.8, 0, 0.5], [5, 0, 0], [0, 0, 9])
    assert find_visible_samples(there, surface, camera()).row.tolist() == [0, 2]
    below = SurfaceSamples(there.points, -there.normals)
    assert len(find_visible_samples(below, surface, camera()).row) == 0


def test_a_tilted_surface_does_not_hide_itself():
    vertices, faces = square([0, 0], 0.6, 0.0)
    tilted = vertices + np.array([0, 0, 1.0]) * vertices[:, :1] * 3
    normal = np.array([-3.0, 0, 1]) / np.sqrt(10)
    along = np.linspace(-0.35, 0.35, 9)[:, None] * [1.0, 0, 3]
    view = find_visible_samples(SurfaceSamples(along, np.tile(normal, (9, 1))), Surface(tilted, faces), camera())
    assert view.row.tolist() == list(range(9))


def test_closer_and_squarer_images_count_more():
    surface = joined(FLOOR)
    oblique = find_visible_samples(samples([0, 0, 0]), surface, camera(x=1.5))
    square_on = find_visible_samples(samples([0, 0, 0]), surface, camera())
    assert oblique.cosine[0] == pytest.approx(4 / np.hypot(4, 1.5))
    assert square_on.pixel[0] == pytest.approx(4 / SIZE)
    rgb, _ = fuse_colors(samples([0, 0, 0]), surface, lambda: [plain((0.5, 0, 0)), plain((0.52, 0, 0), x=1.9)])
    assert 0.5 < rgb[0, 0] < 0.51


def test_a_reflection_in_few_images_is_left_out():
    posed_images = [plain((0.2, 0.4, 0.6), x=0.1 * k) for k in range(8)] + [plain((1, 1, 1), x=-0.1)]
    rgb, known = fuse_colors(samples([0, 0, 0]), joined(FLOOR), lambda: posed_images)
    assert known.all()
    assert np.abs(rgb[0] - [0.2, 0.4, 0.6]).max() < 0.02
    plain_mean = (8 * 0.2 + 1) / 9
    assert plain_mean - 0.2 > 0.08


def test_transparent_pixels_do_not_count():
    half = plain((0.9, 0.1, 0.3)).rgba.clone()
    half[:, SIZE // 2 :] = 0
    rgb, known = fuse_colors(samples([-1, 0, 0], [1, 0, 0]), joined(FLOOR), lambda: [PosedImage(camera(), half)])
    assert known.tolist() == [True, False]
    assert rgb[0] == pytest.approx([0.9, 0.1, 0.3], abs=1e-6)
    rim = sample_premultiplied(half, torch.tensor([[SIZE / 2, 10.0]]).double())[0]
    assert (rim[:3] / rim[3]).tolist() == pytest.approx([0.9, 0.1, 0.3], abs=1e-6)


def test_images_are_looked_up_at_the_pixels_centers(generator):
    rgba = torch.rand(6, 9, 4, generator=generator)
    rgba[..., 3] = 1
    found = sample_premultiplied(rgba, torch.tensor([[0.5, 0.5], [4.5, 2.5], [5.0, 2.5]]).double()).float()
    expected = torch.stack([rgba[0, 0], rgba[2, 4], (rgba[2, 4] + rgba[2, 5]) / 2])
    assert torch.allclose(found, expected, atol=1e-6)


def test_photographs_leave_out_what_does_not_count():
    scene = ball(2, 8)
    images = scene.images
    mask = torch.ones(len(images.pixels), dtype=torch.bool)
    mask[: 8 * 4] = False
    masked = replace(scene, images=Images(images.pixels, images.offsets, mask))
    whole, cut = list(posed_images_of(scene)), list(posed_images_of(masked))
    assert (cut[0].rgba[:4, :, 3] == 0).all()
    assert torch.equal(cut[0].rgba[4:], whole[0].rgba[4:])
    assert torch.equal(cut[1].rgba, whole[1].rgba)
    assert whole[0].rgba[4, 4, 3] == 1
    opaque = replace(scene, images=Images(images.pixels[:, :3], images.offsets))
    assert all((shot.rgba[..., 3] == 1).all() for shot in posed_images_of(opaque))


def test_unknown_colors_come_from_the_nearest_known():
    points, rgb = np.array([[0.0, 0, 0], [1, 0, 0], [0.9, 0, 0]]), np.array([[0.1] * 3, [0.8] * 3, [0.0] * 3])
    assert fill_unknown_colors(points, rgb, np.array([True, True, False]))[:, 0].tolist() == [0.1, 0.8, 0.8]
    assert fill_unknown_colors(points, rgb, np.zeros(3, bool)).tolist() == [[0.5] * 3] * 3
    empty = fill_unknown_colors(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, bool))
    assert empty.shape == (0, 3)


def test_no_spots_and_no_images():
    rgb, _ = fuse_colors(SurfaceSamples(np.empty((0, 3)), np.empty((0, 3))), joined(FLOOR), lambda: [plain((1, 1, 1))])
    assert rgb.shape == (0, 3)
    assert fuse_colors(samples([0, 0, 0]), joined(FLOOR), list)[1].tolist() == [False]
