"""Scene descriptions: item transforms, bounds, and packed rows."""

from __future__ import annotations

import numpy as np
import pytest

from lumifield.synthetic import still_life
from lumifield.synthetic.scene_description import Item, Lighting, Material, SolidColor, SyntheticScene, pack_scene
from lumifield.synthetic.shapes import Box

BOX = Item(
    "box",
    Box((3.0, 2.0, 1.0)),
    Material(SolidColor((0.1, 0.2, 0.3)), coat_reflectance=0.04),
    (1.0, 0.0, 0.0),
    (90, 0, 90),
)


def test_euler_angles_rotate_about_x_first_and_z_last():
    # A quarter turn about x maps z to -y; then a quarter turn about z maps -y to x.
    assert BOX.rotation_matrix() @ [0, 0, 1] == pytest.approx([1, 0, 0], abs=1e-12)
    assert Item("", BOX.shape, BOX.material, euler_angles=(0, 90, 0)).rotation_matrix() @ [0, 0, 1] == pytest.approx(
        [1, 0, 0], abs=1e-12
    )


def test_world_bounds_follow_the_rotation():
    assert BOX.world_bounds() == pytest.approx(np.array([[0, -3, -2], [2, 3, 2]]), abs=2e-5)


def test_packed_rows_hold_the_values_of_the_scene():
    scene = pack_scene(
        SyntheticScene(
            (BOX, BOX), Lighting(sun_direction=(0.0, 3.0, 4.0), sun_irradiance=(1.0, 2.0, 3.0), sun_radius=60.0)
        )
    )
    row = scene.items[1]
    assert (row["shape"], row["coat_reflectance"], row["is_metal"], row["is_convex"]) == (1, 0.04, False, True)
    assert row["dimensions"].tolist() == [3, 2, 1, 0]
    assert row["first_color"].tolist() == [0.1, 0.2, 0.3]
    assert scene.all_items.tolist() == [0, 1]
    assert scene.lighting[0]["sun_direction"] == pytest.approx([0, 0.6, 0.8])
    assert scene.lighting[0]["sun_cosine"] == pytest.approx(0.5)


def test_every_item_of_the_still_life_lies_within_1_2():
    for item in still_life.make_table_scene().items:
        assert np.abs(item.world_bounds()).max() < 1.2
