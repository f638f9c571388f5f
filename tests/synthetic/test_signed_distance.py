"""Shapes and their signed distances: closed forms, bounds, and a brute-force march along rays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lumifield.synthetic import still_life
from lumifield.synthetic.camera_placement import SyntheticView, look_at_c2w
from lumifield.synthetic.path_tracer import render_ground_truth
from lumifield.synthetic.scene_description import Item, Material, SolidColor, SyntheticScene, pack_scene
from lumifield.synthetic.scene_mesh import query_item
from lumifield.synthetic.shapes import Bowl, Box, Cylinder, RoundCone, Shape, Sphere, Torus, Vase

GRAY = Material(SolidColor((0.5, 0.5, 0.5)))
SHAPES: list[Shape] = [
    Sphere(0.4),
    Box((0.5, 0.3, 0.2), 0.05),
    Box((0.2, 0.4, 0.3)),
    Cylinder(0.4, 0.2, 0.05),
    Torus(0.3, 0.1),
    Torus(0.1, 0.3),
    RoundCone(0.3, 0.1, 0.5),
    Bowl(0.4, -0.05, 0.03),
    Bowl(0.4, 0.1, 0.03),
    Vase(0.2, 0.09, 0.5, 0.03),
]
EXACT = [shape for shape in SHAPES if not isinstance(shape, Vase)]
NAMES = [f"{type(shape).__name__}-{i}" for i, shape in enumerate(SHAPES)]


def gap(shape: Shape, points: np.ndarray) -> np.ndarray:
    return query_item(
        pack_scene(SyntheticScene((Item("one", shape, GRAY),))).items, np.ascontiguousarray(points, float)
    )[0]


def test_distances_by_hand():
    origin, aside = [[0, 0, 0]], [[1, 0, 0]]
    assert gap(Sphere(0.4), aside) == pytest.approx(0.6)
    assert gap(Box((0.5, 0.3, 0.2), 0.05), [[0, 0, 1.2]]) == pytest.approx(1.0)
    assert gap(Box((0.5, 0.3, 0.2)), [[0.8, 0.7, 0]]) == pytest.approx(0.5)
    assert gap(Cylinder(0.4, 0.2), [[0.7, 0, 0.6]]) == pytest.approx(0.5)
    assert gap(Torus(0.3, 0.1), origin) == pytest.approx(0.2)
    assert gap(Torus(0.1, 0.3), origin) == pytest.approx(-0.2)
    assert gap(RoundCone(0.3, 0.1, 0.5), [[0, 0, 1]]) == pytest.approx(0.4)
    assert gap(Bowl(0.5, 0.0, 0.1), [[0, 0, -1], [0, 0, 0], [0.5, 0, 1]]) == pytest.approx([0.4, 0.4, 0.9])


@pytest.mark.parametrize("shape", EXACT, ids=[name for name in NAMES if "Vase" not in name])
def test_distance_is_that_of_the_nearest_surface_point(shape: Shape):
    """Against the smallest of the lengths to a dense cloud of surface points."""
    rng = np.random.default_rng(0)
    lower, upper = np.array(shape.bounds())
    cloud = rng.uniform(lower - 0.02, upper + 0.02, (60000, 3))
    row = pack_scene(SyntheticScene((Item("one", shape, GRAY),))).items
    for _ in range(20):
        gaps, slopes, _ = query_item(row, cloud)
        cloud = cloud - gaps[:, None] * slopes
    cloud = cloud[np.abs(gap(shape, cloud)) < 1e-9]
    outside = rng.uniform(lower - 0.5, upper + 0.5, (60, 3))
    outside = outside[gap(shape, outside) > 0]
    nearest = np.linalg.norm(outside[:, None] - cloud, axis=-1).min(1)
    assert gap(shape, outside) == pytest.approx(nearest, abs=4e-3)


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
@settings(max_examples=30)
@given(numbers=st.lists(st.floats(-2, 2), min_size=6, max_size=6))
def test_distance_never_changes_faster_than_the_place(shape: Shape, numbers: list[float]):
    points = np.array(numbers).reshape(2, 3)
    a, b = gap(shape, points)
    assert abs(a - b) <= np.linalg.norm(points[0] - points[1]) + 1e-9


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_bounds_hold_the_shape_and_are_tight(shape: Shape):
    lower, upper = np.array(shape.bounds())
    axes = [np.linspace(a - 0.1, b + 0.1, 81) for a, b in zip(lower, upper, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    inside = points[gap(shape, points) <= 0]
    assert (inside >= lower - 1e-9).all()
    assert (inside <= upper + 1e-9).all()
    assert np.abs(inside.min(0) - lower).max() < 0.03
    assert np.abs(inside.max(0) - upper).max() < 0.03


def test_a_sphere_seen_from_outside_has_the_depth_of_the_quadratic_equation():
    center, radius = np.array([0.1, -0.2, 0.3]), 0.7
    scene = pack_scene(SyntheticScene((Item("ball", Sphere(radius), GRAY, tuple(center)),)))
    view = SyntheticView(look_at_c2w((3.0, -1.0, 1.5), (0.0, 0.0, 0.0)), 60.0, 63, 49)
    seen, rays = render_ground_truth(scene, view), view.rays()
    to_center = center - view.c2w[:, 3]
    along = rays @ to_center
    root = along**2 - to_center @ to_center + radius**2
    expected = np.where(root > 0, along - np.sqrt(np.maximum(root, 0)), np.inf)
    assert (np.isfinite(seen.depth) == (root > 0)).all()
    met = root > 1e-3
    assert seen.depth[met] == pytest.approx(expected[met], abs=2e-6)
    outward = (view.c2w[:, 3] + rays * expected[..., None])[met] - center
    assert seen.normal[met] == pytest.approx(outward / radius, abs=1e-5)
    assert (seen.item == (root > 0)).all()
    assert (seen.normal[root <= 0] == 0).all()


@pytest.mark.parametrize("stage", [still_life.make_table_scene(), still_life.make_room_scene()], ids=["table", "room"])
def test_truth_of_the_still_life_is_that_of_small_steps_along_each_ray(stage: SyntheticScene):
    view = SyntheticView(look_at_c2w((1.2, -3.2, 1.3), (0.0, 0.0, -0.1)), 20.0, 15, 11)
    seen = render_ground_truth(pack_scene(stage), view)
    steps = np.arange(1.0, 10.0, 4e-3)
    points = view.c2w[:, 3] + steps[:, None] * view.rays()[:, :, None]
    inside = np.stack([gap_of(item, points.reshape(-1, 3)).reshape(points.shape[:3]) <= 0 for item in stage.items])
    first = inside.any(0).argmax(-1)
    met = inside.any((0, -1))
    # Between two steps a ray may pass through a corner that the small steps miss: then it must lie on a surface.
    assert (seen.depth[met] <= steps[first[met]] + 1e-6).all()
    where = view.c2w[:, 3] + np.where(seen.item > 0, seen.depth, 0)[..., None].astype(float) * view.rays()
    for number, item in enumerate(stage.items, 1):
        assert np.abs(gap_of(item, where[seen.item == number])).max(initial=0) < 2e-6
    usual = met & (seen.depth > steps[first] - 4e-3)
    assert usual.sum() > 0.98 * np.isfinite(seen.depth).sum() > 50
    row, column = np.nonzero(usual)
    assert inside[seen.item[usual] - 1, row, column, first[usual]].mean() > 0.98


def gap_of(item: Item, points: np.ndarray) -> np.ndarray:
    local = (points - item.center) @ item.rotation()
    return query_item(pack_scene(SyntheticScene((item,))).items, np.ascontiguousarray(local))[0]


def test_normals_are_the_slope_of_the_depth():
    scene = pack_scene(still_life.make_table_scene())
    view = SyntheticView(look_at_c2w((1.0, -3.0, 2.5), (0.0, 0.0, -0.2)), 300.0, 120, 90)
    seen = render_ground_truth(scene, view)
    depth = np.where(seen.item > 0, seen.depth, 0).astype(float)
    points = view.c2w[:, 3] + view.rays() * depth[..., None]
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    slope = np.cross(down, across)
    slope /= np.linalg.norm(slope, axis=-1, keepdims=True) + 1e-30
    item = seen.item
    near = [item[1:-1, 2:], item[1:-1, :-2], item[2:, 1:-1], item[:-2, 1:-1]]
    same = np.logical_and.reduce([other == item[1:-1, 1:-1] for other in near]) & (item[1:-1, 1:-1] > 0)
    cosine = (slope * seen.normal[1:-1, 1:-1]).sum(-1)[same]
    assert same.sum() > 5000
    assert np.quantile(cosine, 0.1) > 0.999
    assert np.linalg.norm(seen.normal[item > 0], axis=-1) == pytest.approx(1, abs=1e-6)


def test_an_empty_stage_shows_nothing():
    seen = render_ground_truth(
        pack_scene(SyntheticScene(())), SyntheticView(look_at_c2w((0.0, -3.0, 1.0), (0.0, 0.0, 0.0)), 10.0, 5, 4)
    )
    assert np.isinf(seen.depth).all()
    assert (seen.item == 0).all()
