"""The path tracer against closed-form radiance."""

from __future__ import annotations

import os
import subprocess
import sys
from math import cos, pi, radians

import numba
import numpy as np
import pytest

from lumifield.synthetic import path_tracer, still_life
from lumifield.synthetic.camera_placement import SyntheticView, look_at_c2w, sphere_views
from lumifield.synthetic.path_tracer import (
    encode_srgb,
    quasirandom_pair,
    render_ground_truth,
    render_image,
    render_radiance,
)
from lumifield.synthetic.scene_description import (
    Checker,
    Item,
    Lighting,
    Material,
    SolidColor,
    SyntheticScene,
    pack_scene,
)
from lumifield.synthetic.shapes import Box, Cylinder, Sphere
from lumifield.synthetic.textures import U64

WHITE = (1.0, 1.0, 1.0)
BLACK = (0.0, 0.0, 0.0)
FURNACE = Lighting(sun_irradiance=BLACK, zenith=WHITE, horizon=WHITE, ground=WHITE)
VIEW = SyntheticView(look_at_c2w((0.5, -3.0, 1.5), (0.0, 0.0, 0.0)), 40.0, 32, 24)


def make_material(color: tuple[float, float, float], coat_reflectance: float = 0.0, is_metal: bool = False) -> Material:
    return Material(SolidColor(color), coat_reflectance, is_metal)


@pytest.mark.parametrize("shape", [Sphere(0.8), Box((0.6, 0.5, 0.4), 0.1), Cylinder(0.7, 0.3)])
def test_white_furnace_shows_the_albedo_of_a_diffuse_convex_item(shape):
    scene = SyntheticScene((Item("one", shape, make_material((0.2, 0.5, 0.9)), euler_angles=(20, 30, 40)),), FURNACE)
    image = render_radiance(pack_scene(scene), VIEW, 4, 0)
    is_hit = image[..., 3] > 0
    assert is_hit.sum() > 100
    assert image[is_hit][:, :3] == pytest.approx(np.broadcast_to([0.2, 0.5, 0.9], (is_hit.sum(), 3)))


@pytest.mark.parametrize("material", [make_material(WHITE, coat_reflectance=0.05), make_material(WHITE, is_metal=True)])
def test_white_furnace_shows_white_for_a_white_item_with_any_coat(material):
    image = render_radiance(pack_scene(SyntheticScene((Item("ball", Sphere(0.8), material),), FURNACE)), VIEW, 4, 0)
    assert image[image[..., 3] > 0][:, :3] == pytest.approx(1)


def test_white_furnace_is_nowhere_brighter_than_white():
    scene = SyntheticScene(still_life.make_tabletop_items(), FURNACE)
    assert render_radiance(pack_scene(scene), sphere_views(1, 0.3, 24)[0], 4, 0).max() <= 1 + 1e-9


def render_shadow(radius: float, height: float) -> np.ndarray:
    """Distance from the axis and radiance of the pixels of a plate under a ball, lit by a sun at the zenith."""
    light = Lighting((0.0, 0.0, 1.0), radius, (pi, pi, pi), BLACK, BLACK, BLACK)
    plate = Item("plate", Cylinder(2.0, 0.05), make_material((0.5, 0.5, 0.5)))
    ball = Item("ball", Sphere(0.4), make_material(BLACK), (0.0, 0.0, height))
    view = SyntheticView(look_at_c2w((0.0, -1.5, 1.0), (0.0, 0.0, 0.05)), 100.0, 101, 75)
    image = render_radiance(pack_scene(SyntheticScene((plate, ball), light)), view, 64, 0)
    ground_truth = render_ground_truth(pack_scene(SyntheticScene((plate, ball), light)), view)
    points = (
        view.c2w[:, 3]
        + view.ray_directions() * np.where(np.isfinite(ground_truth.depth), ground_truth.depth, 0)[..., None]
    )
    # Behind the axis the silhouette of the ball crosses pixels.
    on_plate = (ground_truth.item_id == 1) & (ground_truth.normal[..., 2] > 0.99) & (points[..., 1] < -0.15)
    distance = np.hypot(points[..., 0], points[..., 1])
    return np.stack([distance[on_plate], image[on_plate][:, 0]])


def test_a_small_sun_casts_a_hard_shadow():
    distance, light = render_shadow(0.05, 0.5)
    assert light[distance < 0.37].max() == 0
    assert light[(distance > 0.43) & (distance < 0.8)] == pytest.approx(0.5, rel=1e-5)
    assert (distance < 0.37).sum() > 20


def test_a_large_sun_casts_a_soft_shadow():
    distance, light = render_shadow(10.0, 1.05)
    # The equator of the ball is 1 above the plate: the penumbra extends tan(10 deg) to both sides of the shadow edge.
    assert light[distance < 0.2].max() == 0
    # The mean cosine over the sun disc is the mean of the cosines at its center and its edge.
    assert light[(distance > 0.62) & (distance < 1.8)] == pytest.approx(0.5 * (1 + cos(radians(10))) / 2, rel=0.01)
    edge = light[(distance > 0.38) & (distance < 0.42)]
    assert 0.15 < edge.mean() < 0.35


def render_plate(material: Material, light: Lighting) -> np.ndarray:
    """Radiance of a horizontal plate seen from above."""
    view = SyntheticView(look_at_c2w((0.0, -1e-6, 3.0), (0.0, 0.0, 0.0)), 400.0, 8, 8)
    return render_radiance(
        pack_scene(SyntheticScene((Item("plate", Box((1.0, 1.0, 0.1)), material),), light)), view, 256, 0
    )[..., 0]


def test_a_low_sun_is_weighted_by_its_cosine():
    light = Lighting((np.sqrt(3.0), 0.0, 1.0), 0.5, (pi, pi, pi), BLACK, BLACK, BLACK)
    assert render_plate(make_material((0.6, 0.6, 0.6)), light) == pytest.approx(0.6 / 2, rel=1e-3)


def test_sky_radiance_is_integrated_with_its_cosine():
    # Radiance sqrt(z): its cosine-weighted mean is 2 int_0^1 z^(3/2) dz = 4/5.
    light = Lighting(sun_irradiance=BLACK, zenith=WHITE, horizon=BLACK, ground=BLACK)
    assert render_plate(make_material((0.6, 0.6, 0.6)), light).mean() == pytest.approx(0.6 * 4 / 5, rel=1e-3)


def test_a_coat_reflects_the_sun_disc():
    # A disc of angular radius r and irradiance E has radiance E / (pi sin^2 r).
    light = Lighting((0.0, 0.0, 1.0), 10.0, (0.3, 0.3, 0.3), BLACK, BLACK, BLACK)
    disc = 0.3 / (pi * np.sin(radians(10)) ** 2)
    assert render_plate(make_material(BLACK, coat_reflectance=0.05), light) == pytest.approx(0.05 * disc, rel=1e-5)
    side_light = Lighting((1.0, 0.0, 1.0), 10.0, (0.3, 0.3, 0.3), BLACK, BLACK, BLACK)
    assert render_plate(make_material(BLACK, coat_reflectance=0.05), side_light).max() == 0


def test_a_mirror_reflects_the_item_in_front_of_it():
    mirror = Item("mirror", Box((1.0, 0.05, 1.0)), make_material(WHITE, is_metal=True), (0.0, 1.0, 0.0))
    light = Lighting(sun_irradiance=BLACK, zenith=WHITE, horizon=WHITE, ground=WHITE)
    image = render_radiance(
        pack_scene(SyntheticScene((mirror,), light)),
        SyntheticView(look_at_c2w((0.0, -2.0, 0.0), (0.0, 1.0, 0.0)), 20.0, 8, 8),
        4,
        0,
    )
    red = Item("red", Box((3.0, 0.05, 3.0)), make_material((0.8, 0.0, 0.0)), (0.0, -3.0, 0.0))
    with_red = render_radiance(
        pack_scene(SyntheticScene((mirror, red), light)),
        SyntheticView(look_at_c2w((0.0, -2.0, 0.0), (0.0, 1.0, 0.0)), 20.0, 8, 8),
        4,
        0,
    )
    assert image[..., :3] == pytest.approx(1)
    assert with_red[2:6, 2:6, 0].min() > 0.5
    assert with_red[2:6, 2:6, 1:3].max() == 0


DIGEST = """
import hashlib
from lumifield.synthetic import still_life
from lumifield.synthetic.camera_placement import sphere_views
from lumifield.synthetic.path_tracer import render_radiance
from lumifield.synthetic.scene_description import pack_scene
image = render_radiance(pack_scene(still_life.make_table_scene()), sphere_views(3, 0.0, 32)[1], 4, 5)
print(hashlib.sha256(image.tobytes()).hexdigest())
"""


def test_the_number_of_threads_does_not_change_the_image():
    digests = set()
    for threads in ("1", "2"):
        environment = os.environ | {"NUMBA_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_only_the_seed_changes_the_noise():
    scene, view = pack_scene(still_life.make_table_scene()), sphere_views(3, 0.0, 24)[1]
    first, again, other = (render_image(scene, view, 2, seed) for seed in (1, 1, -2))
    assert (first == again).all()
    assert (first != other).any()


def test_more_samples_reduce_the_error_without_bias():
    scene, view = pack_scene(still_life.make_table_scene()), sphere_views(3, 0.0, 16)[1]
    mean = np.mean([render_radiance(scene, view, 256, 100 + seed) for seed in range(2)], 0)
    inside = mean[..., 3] == 1
    errors = [np.sqrt(np.square(render_radiance(scene, view, n, 1) - mean)[inside].mean()) for n in (4, 64)]
    assert errors[1] < errors[0] / 3
    bias = np.mean([render_radiance(scene, view, 2, seed) for seed in range(100)], 0) - mean
    assert np.abs(bias[inside].mean(0)).max() < 2e-3


def test_alpha_is_the_covered_fraction_of_the_pixel():
    view = SyntheticView(look_at_c2w((0.0, -3.0, 0.0), (0.0, 0.0, 0.0)), 40.0, 41, 41)
    image = render_radiance(pack_scene(SyntheticScene((Item("ball", Sphere(1.0), make_material(WHITE)),))), view, 64, 0)
    # The cone tangent to the ball intersects the image in a disc of radius f tan(asin(1 / 3)).
    assert image[..., 3].sum() == pytest.approx(pi * 40**2 / 8, rel=2e-3)
    assert (image[image[..., 3] == 0] == 0).all()


def test_culling_by_item_bounds_changes_no_pixel(monkeypatch):
    scene = SyntheticScene(
        (*still_life.make_table_scene().items, Item("behind", Sphere(1.0), make_material(WHITE), (0.0, -3.2, 0.4)))
    )
    # A wall that extends behind the camera on the left and is visible only on the right.
    wall = SyntheticScene((Item("wall", Box((10.0, 0.125, 1.0)), make_material(WHITE), (0.0, -0.75, 0.0)),))
    wide = SyntheticView(look_at_c2w((0.0, 0.0, 0.0), (1.0, 1.0, 0.0)), 10.0, 60, 20)
    cases = [(still_life.make_table_scene(), sphere_views(5, 0.0, 32)[4]), (scene, VIEW), (wall, wide)]
    for scene, view in [(pack_scene(scene), view) for scene, view in cases]:
        culled = render_radiance(scene, view, 2, 3)
        full_image = np.tile([0, 0, view.width, view.height], (len(scene.items), 1))
        with monkeypatch.context() as patch:
            patch.setattr(path_tracer, "project_item_bounds", lambda scene, view, full_image=full_image: full_image)
            assert (render_radiance(scene, view, 2, 3) == culled).all()


def test_a_checkerboard_has_both_colors_in_the_right_squares():
    board = Item("board", Box((1.0, 1.0, 0.1)), Material(Checker(WHITE, BLACK, 2.0)))
    view = SyntheticView(look_at_c2w((0.0, -0.001, 3.0), (0.0, 0.0, 0.0)), 80.0, 40, 40)
    image = render_radiance(pack_scene(SyntheticScene((board,), FURNACE)), view, 1, 0)[..., 0]
    points = (
        view.c2w[:, 3]
        + view.ray_directions() * render_ground_truth(pack_scene(SyntheticScene((board,))), view).depth[..., None]
    )
    inner = (np.abs(points[..., :2] * 2 - np.round(points[..., :2] * 2)) > 0.15).all(-1)
    expected = 1 - np.floor(points[..., :2] * 2).sum(-1) % 2
    assert image[inner] == pytest.approx(expected[inner])
    assert 0 < expected[inner].mean() < 1


@numba.njit
def fill_pairs(seed, pair, num_samples, out):
    for sample in range(num_samples):
        out[sample] = quasirandom_pair((seed, sample, num_samples), pair)


@pytest.mark.parametrize("num_samples", [1, 24, 63, 100])
@pytest.mark.parametrize("pair", [0, 3, 10])
def test_every_pair_of_dimensions_is_evenly_spread(num_samples: int, pair: int):
    numbers = np.empty((num_samples, 2))
    fill_pairs(U64(77), pair, num_samples, numbers)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    gaps = np.diff(np.sort(numbers[:, 0]))
    assert gaps == pytest.approx(1 / num_samples)
    assert np.diff(np.sort(numbers[:, 1]), append=np.sort(numbers[:, 1])[0] + 1).max() < 3 / num_samples


def test_srgb_transfer_function():
    assert encode_srgb(np.array([-1.0, 0.0, 0.0031308, 0.5, 1.0, 7.0])) == pytest.approx(
        [0, 0, 0.04045, 0.735357, 1, 1], abs=1e-5
    )
