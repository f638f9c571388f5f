"""The path tracer against what light must do."""

from __future__ import annotations

import os
import subprocess
import sys
from math import cos, pi, radians

import numba
import numpy as np
import pytest

from lumifield.synthetic import still_life
from lumifield.synthetic.camera_placement import SyntheticView, look_at_c2w
from lumifield.synthetic.path_tracer import encode_srgb, quasirandom_pair, render_image, render_radiance
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
FURNACE = Lighting(sun=BLACK, zenith=WHITE, horizon=WHITE, ground=WHITE)
VIEW = SyntheticView(look_at_c2w((0.5, -3.0, 1.5), (0.0, 0.0, 0.0)), 40.0, 32, 24)


def plain(color: tuple[float, float, float], coat: float = 0.0, metal: bool = False) -> Material:
    return Material(SolidColor(color), coat, metal)


@pytest.mark.parametrize("shape", [Sphere(0.8), Box((0.6, 0.5, 0.4), 0.1), Cylinder(0.7, 0.3)])
def test_in_a_white_furnace_a_matt_convex_thing_shows_its_albedo(shape):
    stage = SyntheticScene((Item("one", shape, plain((0.2, 0.5, 0.9)), turn=(20, 30, 40)),), FURNACE)
    image = render_radiance(pack_scene(stage), VIEW, 4, 0)
    met = image[..., 3] > 0
    assert met.sum() > 100
    assert image[met][:, :3] == pytest.approx(np.broadcast_to([0.2, 0.5, 0.9], (met.sum(), 3)))


@pytest.mark.parametrize("material", [plain(WHITE, coat=0.05), plain(WHITE, metal=True)])
def test_in_a_white_furnace_a_white_thing_under_any_coat_is_white(material):
    image = render_radiance(pack_scene(SyntheticScene((Item("ball", Sphere(0.8), material),), FURNACE)), VIEW, 4, 0)
    assert image[image[..., 3] > 0][:, :3] == pytest.approx(1)


def test_in_a_white_furnace_nothing_shines_brighter_than_white():
    stage = SyntheticScene(still_life.make_tabletop_items(), FURNACE)
    assert render_radiance(pack_scene(stage), views.sphere(1, 0.3, 24)[0], 4, 0).max() <= 1 + 1e-9


def lit_plate(radius: float, height: float) -> np.ndarray:
    """A ball over a plate under a sun in the zenith: distance from the middle and radiance of the plate's pixels."""
    light = Lighting((0.0, 0.0, 1.0), radius, (pi, pi, pi), BLACK, BLACK, BLACK)
    plate = Item("plate", Cylinder(2.0, 0.05), plain((0.5, 0.5, 0.5)))
    ball = Item("ball", Sphere(0.4), plain(BLACK), (0.0, 0.0, height))
    view = SyntheticView(look_at_c2w((0.0, -1.5, 1.0), (0.0, 0.0, 0.05)), 100.0, 101, 75)
    image = render_radiance(pack_scene(SyntheticScene((plate, ball), light)), view, 64, 0)
    seen = tracer.render_ground_truth(pack_scene(SyntheticScene((plate, ball), light)), view)
    points = view.c2w[:, 3] + view.rays() * np.where(np.isfinite(seen.depth), seen.depth, 0)[..., None]
    # Behind the middle the ball cuts pixels in two.
    on_plate = (seen.item == 1) & (seen.normal[..., 2] > 0.99) & (points[..., 1] < -0.15)
    distance = np.hypot(points[..., 0], points[..., 1])
    return np.stack([distance[on_plate], image[on_plate][:, 0]])


def test_a_small_sun_casts_a_hard_shadow_where_the_ball_stands_in_its_way():
    distance, light = lit_plate(0.05, 0.5)
    assert light[distance < 0.37].max() == 0
    assert light[(distance > 0.43) & (distance < 0.8)] == pytest.approx(0.5, rel=1e-5)
    assert (distance < 0.37).sum() > 20


def test_a_large_sun_casts_a_soft_shadow():
    distance, light = lit_plate(10.0, 1.05)
    # The ball's rim is 1 above the plate: the half shadow reaches tan(10 deg) to both sides of its edge.
    assert light[distance < 0.2].max() == 0
    # The mean of the cosine over the disc is that of its rim and its middle.
    assert light[(distance > 0.62) & (distance < 1.8)] == pytest.approx(0.5 * (1 + cos(radians(10))) / 2, rel=0.01)
    edge = light[(distance > 0.38) & (distance < 0.42)]
    assert 0.15 < edge.mean() < 0.35


def overhead(material: Material, light: Lighting) -> np.ndarray:
    """Radiance of a level plate straight from above."""
    view = SyntheticView(look_at_c2w((0.0, -1e-6, 3.0), (0.0, 0.0, 0.0)), 400.0, 8, 8)
    return render_radiance(
        pack_scene(SyntheticScene((Item("plate", Box((1.0, 1.0, 0.1)), material),), light)), view, 256, 0
    )[..., 0]


def test_a_low_sun_lights_by_its_cosine():
    light = Lighting((np.sqrt(3.0), 0.0, 1.0), 0.5, (pi, pi, pi), BLACK, BLACK, BLACK)
    assert overhead(plain((0.6, 0.6, 0.6)), light) == pytest.approx(0.6 / 2, rel=1e-3)


def test_a_sky_lights_by_the_cosine_of_each_of_its_parts():
    # Radiance sqrt(z): its mean, weighed by the cosine, is 2 int_0^1 z^(3/2) dz = 4/5.
    light = Lighting(sun=BLACK, zenith=WHITE, horizon=BLACK, ground=BLACK)
    assert overhead(plain((0.6, 0.6, 0.6)), light).mean() == pytest.approx(0.6 * 4 / 5, rel=1e-3)


def test_a_coat_throws_back_its_share_of_the_sun():
    # A disc of radius r that gives E has the radiance E / (pi sin^2 r).
    light = Lighting((0.0, 0.0, 1.0), 10.0, (0.3, 0.3, 0.3), BLACK, BLACK, BLACK)
    disc = 0.3 / (pi * np.sin(radians(10)) ** 2)
    assert overhead(plain(BLACK, coat=0.05), light) == pytest.approx(0.05 * disc, rel=1e-5)
    aside = Lighting((1.0, 0.0, 1.0), 10.0, (0.3, 0.3, 0.3), BLACK, BLACK, BLACK)
    assert overhead(plain(BLACK, coat=0.05), aside).max() == 0


def test_a_mirror_shows_what_stands_before_it():
    mirror = Item("mirror", Box((1.0, 0.05, 1.0)), plain(WHITE, metal=True), (0.0, 1.0, 0.0))
    light = Lighting(sun=BLACK, zenith=WHITE, horizon=WHITE, ground=WHITE)
    image = render_radiance(
        pack_scene(SyntheticScene((mirror,), light)),
        SyntheticView(look_at_c2w((0.0, -2.0, 0.0), (0.0, 1.0, 0.0)), 20.0, 8, 8),
        4,
        0,
    )
    red = Item("red", Box((3.0, 0.05, 3.0)), plain((0.8, 0.0, 0.0)), (0.0, -3.0, 0.0))
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
from lumifield.synthetic import camera_placement
from lumifield.synthetic.scene_description import pack
from lumifield.synthetic.path_tracer import render_radiance
image = render_radiance(pack(still_life.table()), views.sphere(3, 0.0, 32)[1], 4, 5)
print(hashlib.sha256(image.tobytes()).hexdigest())
"""


def test_an_image_does_not_depend_on_the_number_of_threads():
    digests = set()
    for threads in ("1", "2"):
        environment = os.environ | {"NUMBA_NUM_THREADS": threads}
        done = subprocess.run([sys.executable, "-c", DIGEST], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        digests.add(done.stdout)
    assert len(digests) == 1


def test_the_key_alone_changes_the_noise():
    scene, view = pack_scene(still_life.make_table_scene()), views.sphere(3, 0.0, 24)[1]
    first, again, other = (render_image(scene, view, 2, key) for key in (1, 1, -2))
    assert (first == again).all()
    assert (first != other).any()


def test_more_samples_come_closer_to_the_mean():
    scene, view = pack_scene(still_life.make_table_scene()), views.sphere(3, 0.0, 16)[1]
    mean = np.mean([render_radiance(scene, view, 256, 100 + key) for key in range(2)], 0)
    inside = mean[..., 3] == 1
    errors = [np.sqrt(np.square(render_radiance(scene, view, n, 1) - mean)[inside].mean()) for n in (4, 64)]
    assert errors[1] < errors[0] / 3
    bias = np.mean([render_radiance(scene, view, 2, key) for key in range(100)], 0) - mean
    assert np.abs(bias[inside].mean(0)).max() < 2e-3


def test_alpha_is_the_share_of_the_pixel_that_is_covered():
    view = SyntheticView(look_at_c2w((0.0, -3.0, 0.0), (0.0, 0.0, 0.0)), 40.0, 41, 41)
    image = render_radiance(pack_scene(SyntheticScene((Item("ball", Sphere(1.0), plain(WHITE)),))), view, 64, 0)
    # The cone that touches the ball cuts the image in a disc of radius f tan(asin(1 / 3)).
    assert image[..., 3].sum() == pytest.approx(pi * 40**2 / 8, rel=2e-3)
    assert (image[image[..., 3] == 0] == 0).all()


def test_windows_leave_nothing_out(monkeypatch):
    stage = SyntheticScene(
        (*still_life.make_table_scene().items, Item("behind", Sphere(1.0), plain(WHITE), (0.0, -3.2, 0.4)))
    )
    # A wall that comes from behind on the left and is seen on the right alone.
    wall = SyntheticScene((Item("wall", Box((10.0, 0.125, 1.0)), plain(WHITE), (0.0, -0.75, 0.0)),))
    wide = SyntheticView(look_at_c2w((0.0, 0.0, 0.0), (1.0, 1.0, 0.0)), 10.0, 60, 20)
    cases = [(still_life.make_table_scene(), views.sphere(5, 0.0, 32)[4]), (stage, VIEW), (wall, wide)]
    for scene, view in [(pack_scene(stage), view) for stage, view in cases]:
        quick = render_radiance(scene, view, 2, 3)
        whole = np.tile([0, 0, view.width, view.height], (len(scene.items), 1))
        with monkeypatch.context() as patch:
            patch.setattr(tracer, "windows", lambda scene, view, whole=whole: whole)
            assert (render_radiance(scene, view, 2, 3) == quick).all()


def test_textures_show_both_colors_in_the_right_places():
    board = Item("board", Box((1.0, 1.0, 0.1)), Material(Checker(WHITE, BLACK, 2.0)))
    view = SyntheticView(look_at_c2w((0.0, -0.001, 3.0), (0.0, 0.0, 0.0)), 80.0, 40, 40)
    image = render_radiance(pack_scene(SyntheticScene((board,), FURNACE)), view, 1, 0)[..., 0]
    points = (
        view.c2w[:, 3]
        + view.rays() * tracer.render_ground_truth(pack_scene(SyntheticScene((board,))), view).depth[..., None]
    )
    inner = (np.abs(points[..., :2] * 2 - np.round(points[..., :2] * 2)) > 0.15).all(-1)
    expected = 1 - np.floor(points[..., :2] * 2).sum(-1) % 2
    assert image[inner] == pytest.approx(expected[inner])
    assert 0 < expected[inner].mean() < 1


@numba.njit
def pairs(key, k, samples, out):
    for sample in range(samples):
        out[sample] = quasirandom_pair((key, sample, samples), k)


@pytest.mark.parametrize("samples", [1, 24, 63, 100])
@pytest.mark.parametrize("k", [0, 3, 10])
def test_every_pair_of_dimensions_is_spread_evenly(samples: int, k: int):
    numbers = np.empty((samples, 2))
    pairs(U64(77), k, samples, numbers)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    gaps = np.diff(np.sort(numbers[:, 0]))
    assert gaps == pytest.approx(1 / samples)
    assert np.diff(np.sort(numbers[:, 1]), append=np.sort(numbers[:, 1])[0] + 1).max() < 3 / samples


def test_srgb_curve():
    assert encode_srgb(np.array([-1.0, 0.0, 0.0031308, 0.5, 1.0, 7.0])) == pytest.approx(
        [0, 0, 0.04045, 0.735357, 1, 1], abs=1e-5
    )
