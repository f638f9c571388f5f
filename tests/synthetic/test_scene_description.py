"""Items in the world, and their rows."""

from __future__ import annotations

import numpy as np
import pytest

from lumifield.synthetic import still_life
from lumifield.synthetic.scene_description import Item, Lighting, Material, SolidColor, SyntheticScene, pack_scene
from lumifield.synthetic.shapes import Box

BOX = Item("box", Box((3.0, 2.0, 1.0)), Material(SolidColor((0.1, 0.2, 0.3)), coat=0.04), (1.0, 0.0, 0.0), (90, 0, 90))


def test_an_item_turns_about_x_first_and_z_last():
    # About x by a quarter: z to -y; then about z by a quarter: -y to x.
    assert BOX.rotation() @ [0, 0, 1] == pytest.approx([1, 0, 0], abs=1e-12)
    assert Item("", BOX.shape, BOX.material, turn=(0, 90, 0)).rotation() @ [0, 0, 1] == pytest.approx(
        [1, 0, 0], abs=1e-12
    )


def test_bounds_follow_the_turn():
    assert BOX.world_bounds() == pytest.approx(np.array([[0, -3, -2], [2, 3, 2]]), abs=2e-5)


def test_rows_hold_what_the_stage_says():
    scene = pack_scene(SyntheticScene((BOX, BOX), Lighting(towards=(0.0, 3.0, 4.0), sun=(1.0, 2.0, 3.0), radius=60.0)))
    row = scene.items[1]
    assert (row["kind"], row["coat"], row["metal"], row["convex"]) == (1, 0.04, False, True)
    assert row["size"].tolist() == [3, 2, 1, 0]
    assert row["first"].tolist() == [0.1, 0.2, 0.3]
    assert scene.all.tolist() == [0, 1]
    assert scene.light[0]["towards"] == pytest.approx([0, 0.6, 0.8])
    assert scene.light[0]["sun_cosine"] == pytest.approx(0.5)


def test_every_item_of_the_still_life_lies_in_the_cube_of_half_side_1_2():
    for item in still_life.make_table_scene().items:
        assert np.abs(item.world_bounds()).max() < 1.2
