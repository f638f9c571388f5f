"""Signed distance functions: closed forms, bounds, and brute-force marching along rays."""

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


def shape_distance(shape: Shape, points: np.ndarray) -> np.ndarray:
    return query_item(
        pack_scene(SyntheticScene((Item("one", shape, GRAY),))).items, np.ascontiguousarray(points, float)
    )[0]


def test_distances_in_closed_form():
    origin, on_x_axis = [[0, 0, 0]], [[1, 0, 0]]
    assert shape_distance(Sphere(0.4), on_x_axis) == pytest.approx(0.6)
    assert shape_distance(Box((0.5, 0.3, 0.2), 0.05), [[0, 0, 1.2]]) == pytest.approx(1.0)
    assert shape_distance(Box((0.5, 0.3, 0.2)), [[0.8, 0.7, 0]]) == pytest.approx(0.5)
    assert shape_distance(Cylinder(0.4, 0.2), [[0.7, 0, 0.6]]) == pytest.approx(0.5)
    assert shape_distance(Torus(0.3, 0.1), origin) == pytest.approx(0.2)
    assert shape_distance(Torus(0.1, 0.3), origin) == pytest.approx(-0.2)
    assert shape_distance(RoundCone(0.3, 0.1, 0.5), [[0, 0, 1]]) == pytest.approx(0.4)
    assert shape_distance(Bowl(0.5, 0.0, 0.1), [[0, 0, -1], [0, 0, 0], [0.5, 0, 1]]) == pytest.approx([0.4, 0.4, 0.9])


@pytest.mark.parametrize("shape", EXACT, ids=[name for name in NAMES if "Vase" not in name])
def test_distance_is_that_of_the_closest_surface_point(shape: Shape):
    """Compares with the minimum distance to a dense cloud of surface points."""
    rng = np.random.default_rng(0)
    lower, upper = np.array(shape.bounds())
    surface_points = rng.uniform(lower - 0.02, upper + 0.02, (60000, 3))
    row = pack_scene(SyntheticScene((Item("one", shape, GRAY),))).items
    for _ in range(20):
        distances, gradients, _ = query_item(row, surface_points)
        surface_points = surface_points - distances[:, None] * gradients
    surface_points = surface_points[np.abs(shape_distance(shape, surface_points)) < 1e-9]
    outside = rng.uniform(lower - 0.5, upper + 0.5, (60, 3))
    outside = outside[shape_distance(shape, outside) > 0]
    nearest = np.linalg.norm(outside[:, None] - surface_points, axis=-1).min(1)
    assert shape_distance(shape, outside) == pytest.approx(nearest, abs=4e-3)


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
@settings(max_examples=30)
@given(numbers=st.lists(st.floats(-2, 2), min_size=6, max_size=6))
def test_distance_is_1_lipschitz(shape: Shape, numbers: list[float]):
    points = np.array(numbers).reshape(2, 3)
    a, b = shape_distance(shape, points)
    assert abs(a - b) <= np.linalg.norm(points[0] - points[1]) + 1e-9


@pytest.mark.parametrize("shape", SHAPES, ids=NAMES)
def test_bounds_contain_the_shape_and_are_tight(shape: Shape):
    lower, upper = np.array(shape.bounds())
    axes = [np.linspace(a - 0.1, b + 0.1, 81) for a, b in zip(lower, upper, strict=True)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    inside = points[shape_distance(shape, points) <= 0]
    assert (inside >= lower - 1e-9).all()
    assert (inside <= upper + 1e-9).all()
    assert np.abs(inside.min(0) - lower).max() < 0.03
    assert np.abs(inside.max(0) - upper).max() < 0.03


def test_depth_of_a_sphere_solves_the_quadratic_equation():
    center, radius = np.array([0.1, -0.2, 0.3]), 0.7
    scene = pack_scene(SyntheticScene((Item("ball", Sphere(radius), GRAY, tuple(center)),)))
    view = SyntheticView(look_at_c2w((3.0, -1.0, 1.5), (0.0, 0.0, 0.0)), 60.0, 63, 49)
    ground_truth, ray_directions = render_ground_truth(scene, view), view.ray_directions()
    to_center = center - view.c2w[:, 3]
    ray_projection = ray_directions @ to_center
    root = ray_projection**2 - to_center @ to_center + radius**2
    expected = np.where(root > 0, ray_projection - np.sqrt(np.maximum(root, 0)), np.inf)
    assert (np.isfinite(ground_truth.depth) == (root > 0)).all()
    is_hit = root > 1e-3
    assert ground_truth.depth[is_hit] == pytest.approx(expected[is_hit], abs=2e-6)
    outward = (view.c2w[:, 3] + ray_directions * expected[..., None])[is_hit] - center
    assert ground_truth.normal[is_hit] == pytest.approx(outward / radius, abs=1e-5)
    assert (ground_truth.item_id == (root > 0)).all()
    assert (ground_truth.normal[root <= 0] == 0).all()


@pytest.mark.parametrize("scene", [still_life.make_table_scene(), still_life.make_room_scene()], ids=["table", "room"])
def test_ground_truth_of_the_still_life_agrees_with_small_steps_along_each_ray(scene: SyntheticScene):
    view = SyntheticView(look_at_c2w((1.2, -3.2, 1.3), (0.0, 0.0, -0.1)), 20.0, 15, 11)
    ground_truth = render_ground_truth(pack_scene(scene), view)
    steps = np.arange(1.0, 10.0, 4e-3)
    points = view.c2w[:, 3] + steps[:, None] * view.ray_directions()[:, :, None]
    inside = np.stack(
        [item_distance(item, points.reshape(-1, 3)).reshape(points.shape[:3]) <= 0 for item in scene.items]
    )
    first_inside = inside.any(0).argmax(-1)
    is_hit = inside.any((0, -1))
    # Between two steps a ray may cross a corner that the steps miss: then the hit must lie on a surface.
    assert (ground_truth.depth[is_hit] <= steps[first_inside[is_hit]] + 1e-6).all()
    hit_points = (
        view.c2w[:, 3]
        + np.where(ground_truth.item_id > 0, ground_truth.depth, 0)[..., None].astype(float) * view.ray_directions()
    )
    for number, item in enumerate(scene.items, 1):
        assert np.abs(item_distance(item, hit_points[ground_truth.item_id == number])).max(initial=0) < 2e-6
    is_regular = is_hit & (ground_truth.depth > steps[first_inside] - 4e-3)
    assert is_regular.sum() > 0.98 * np.isfinite(ground_truth.depth).sum() > 50
    row, column = np.nonzero(is_regular)
    assert inside[ground_truth.item_id[is_regular] - 1, row, column, first_inside[is_regular]].mean() > 0.98


def item_distance(item: Item, points: np.ndarray) -> np.ndarray:
    local = (points - item.center) @ item.rotation_matrix()
    return query_item(pack_scene(SyntheticScene((item,))).items, np.ascontiguousarray(local))[0]


def test_normals_agree_with_depth_differences():
    scene = pack_scene(still_life.make_table_scene())
    view = SyntheticView(look_at_c2w((1.0, -3.0, 2.5), (0.0, 0.0, -0.2)), 300.0, 120, 90)
    ground_truth = render_ground_truth(scene, view)
    depth = np.where(ground_truth.item_id > 0, ground_truth.depth, 0).astype(float)
    points = view.c2w[:, 3] + view.ray_directions() * depth[..., None]
    horizontal, vertical = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    normal = np.cross(vertical, horizontal)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + 1e-30
    item = ground_truth.item_id
    neighbors = [item[1:-1, 2:], item[1:-1, :-2], item[2:, 1:-1], item[:-2, 1:-1]]
    is_interior = np.logical_and.reduce([other == item[1:-1, 1:-1] for other in neighbors]) & (item[1:-1, 1:-1] > 0)
    cosine = (normal * ground_truth.normal[1:-1, 1:-1]).sum(-1)[is_interior]
    assert is_interior.sum() > 5000
    assert np.quantile(cosine, 0.1) > 0.999
    assert np.linalg.norm(ground_truth.normal[item > 0], axis=-1) == pytest.approx(1, abs=1e-6)


def test_an_empty_scene_has_no_hits():
    ground_truth = render_ground_truth(
        pack_scene(SyntheticScene(())), SyntheticView(look_at_c2w((0.0, -3.0, 1.0), (0.0, 0.0, 0.0)), 10.0, 5, 4)
    )
    assert np.isinf(ground_truth.depth).all()
    assert (ground_truth.item_id == 0).all()
