"""Images color the surface samples that they see; reflections and occluding silhouettes have little influence."""

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
    iterate_posed_images,
    sample_premultiplied,
)
from lumifield.export.marching_cubes import TriangleMesh
from lumifield.geometry.cameras import pinhole_cameras
from scenes import ball

SIZE = 32


def camera_above(x=0.0, y=0.0):
    """A camera four units above the plane z = 0 that looks down on it; its image covers four units."""
    c2w = torch.tensor([[1.0, 0, 0, x], [0, -1, 0, y], [0, 0, -1, 4]])
    cameras = pinhole_cameras(c2w[None], float(SIZE), (SIZE, SIZE))
    return replace(cameras, c2w=cameras.c2w.double())


def constant_image(color, **position):
    return PosedImage(camera_above(**position), torch.tensor([*color, 1.0]).expand(SIZE, SIZE, 4))


def square(center, half_size, z):
    """Two triangles that face up."""
    corners = np.array([[-1.0, -1], [1, -1], [1, 1], [-1, 1]]) * half_size + center
    return np.concatenate([corners, np.full((4, 1), z)], 1), np.array([[0, 1, 2], [0, 2, 3]])


def merge_meshes(*parts):
    offsets = np.cumsum([0, *(len(vertices) for vertices, _ in parts)])
    faces = [faces + start for (_, faces), start in zip(parts, offsets, strict=False)]
    return TriangleMesh(np.concatenate([vertices for vertices, _ in parts]), np.concatenate(faces))


FLOOR = square([0, 0], 2, 0.0)
UP = np.array([0.0, 0.0, 1.0])


def samples_at(*points):
    return SurfaceSamples(np.array(points, float), np.tile(UP, (len(points), 1)))


def test_samples_that_are_occluded_averted_or_outside_the_image_are_not_visible():
    mesh = merge_meshes(FLOOR, square([0.8, 0], 0.4, 0.5))
    samples = samples_at([0, 0, 0], [0.8, 0, 0], [0.8, 0, 0.5], [5, 0, 0], [0, 0, 9])
    assert find_visible_samples(samples, mesh, camera_above()).row.tolist() == [0, 2]
    averted = SurfaceSamples(samples.points, -samples.normals)
    assert len(find_visible_samples(averted, mesh, camera_above()).row) == 0


def test_a_tilted_surface_does_not_occlude_itself():
    vertices, faces = square([0, 0], 0.6, 0.0)
    tilted = vertices + np.array([0, 0, 1.0]) * vertices[:, :1] * 3
    normal = np.array([-3.0, 0, 1]) / np.sqrt(10)
    points = np.linspace(-0.35, 0.35, 9)[:, None] * [1.0, 0, 3]
    samples = SurfaceSamples(points, np.tile(normal, (9, 1)))
    visible = find_visible_samples(samples, TriangleMesh(tilted, faces), camera_above())
    assert visible.row.tolist() == list(range(9))


def test_images_that_are_closer_and_more_frontal_have_more_weight():
    mesh = merge_meshes(FLOOR)
    oblique = find_visible_samples(samples_at([0, 0, 0]), mesh, camera_above(x=1.5))
    frontal = find_visible_samples(samples_at([0, 0, 0]), mesh, camera_above())
    assert oblique.cosine[0] == pytest.approx(4 / np.hypot(4, 1.5))
    assert frontal.pixel_width[0] == pytest.approx(4 / SIZE)
    images = [constant_image((0.5, 0, 0)), constant_image((0.52, 0, 0), x=1.9)]
    rgb, _ = fuse_colors(samples_at([0, 0, 0]), mesh, lambda: images)
    assert 0.5 < rgb[0, 0] < 0.51


def test_a_reflection_in_few_images_has_little_influence():
    images = [constant_image((0.2, 0.4, 0.6), x=0.1 * k) for k in range(8)] + [constant_image((1, 1, 1), x=-0.1)]
    rgb, is_known = fuse_colors(samples_at([0, 0, 0]), merge_meshes(FLOOR), lambda: images)
    assert is_known.all()
    assert np.abs(rgb[0] - [0.2, 0.4, 0.6]).max() < 0.02
    unweighted_mean = (8 * 0.2 + 1) / 9
    assert unweighted_mean - 0.2 > 0.08


def test_transparent_pixels_have_no_influence():
    rgba = constant_image((0.9, 0.1, 0.3)).rgba.clone()
    rgba[:, SIZE // 2 :] = 0
    samples = samples_at([-1, 0, 0], [1, 0, 0])
    rgb, is_known = fuse_colors(samples, merge_meshes(FLOOR), lambda: [PosedImage(camera_above(), rgba)])
    assert is_known.tolist() == [True, False]
    assert rgb[0] == pytest.approx([0.9, 0.1, 0.3], abs=1e-6)
    edge = sample_premultiplied(rgba, torch.tensor([[SIZE / 2, 10.0]]).double())[0]
    assert (edge[:3] / edge[3]).tolist() == pytest.approx([0.9, 0.1, 0.3], abs=1e-6)


def test_samples_are_interpolated_between_pixel_centers(generator):
    rgba = torch.rand(6, 9, 4, generator=generator)
    rgba[..., 3] = 1
    found = sample_premultiplied(rgba, torch.tensor([[0.5, 0.5], [4.5, 2.5], [5.0, 2.5]]).double()).float()
    expected = torch.stack([rgba[0, 0], rgba[2, 4], (rgba[2, 4] + rgba[2, 5]) / 2])
    assert torch.allclose(found, expected, atol=1e-6)


def test_invalid_pixels_are_transparent():
    scene = ball(2, 8)
    images = scene.images
    mask = torch.ones(len(images.pixels), dtype=torch.bool)
    mask[: 8 * 4] = False
    masked = replace(scene, images=Images(images.pixels, images.offsets, mask))
    whole, cut = list(iterate_posed_images(scene)), list(iterate_posed_images(masked))
    assert (cut[0].rgba[:4, :, 3] == 0).all()
    assert torch.equal(cut[0].rgba[4:], whole[0].rgba[4:])
    assert torch.equal(cut[1].rgba, whole[1].rgba)
    assert whole[0].rgba[4, 4, 3] == 1


def test_images_without_alpha_are_opaque():
    scene = ball(2, 8)
    opaque = replace(scene, images=Images(scene.images.pixels[:, :3], scene.images.offsets))
    assert all((posed_image.rgba[..., 3] == 1).all() for posed_image in iterate_posed_images(opaque))


def test_unknown_colors_come_from_the_nearest_known_sample():
    points, rgb = np.array([[0.0, 0, 0], [1, 0, 0], [0.9, 0, 0]]), np.array([[0.1] * 3, [0.8] * 3, [0.0] * 3])
    assert fill_unknown_colors(points, rgb, np.array([True, True, False]))[:, 0].tolist() == [0.1, 0.8, 0.8]
    assert fill_unknown_colors(points, rgb, np.zeros(3, bool)).tolist() == [[0.5] * 3] * 3
    empty = fill_unknown_colors(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, bool))
    assert empty.shape == (0, 3)


def test_no_samples_and_no_images():
    no_samples = SurfaceSamples(np.empty((0, 3)), np.empty((0, 3)))
    rgb, _ = fuse_colors(no_samples, merge_meshes(FLOOR), lambda: [constant_image((1, 1, 1))])
    assert rgb.shape == (0, 3)
    assert fuse_colors(samples_at([0, 0, 0]), merge_meshes(FLOOR), list)[1].tolist() == [False]
