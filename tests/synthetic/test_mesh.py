"""The mesh lies on the surfaces, is closed, and comes back from its file."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import trimesh

from lumifield.synthetic import still_life
from lumifield.synthetic.mesh import item_mesh, mesh, probed, write_mesh
from lumifield.synthetic.shapes import Box, Sphere
from lumifield.synthetic.stage import Checker, Item, Material, Plain, Stage, pack

GRAY = Material(Plain((0.5, 0.5, 0.5)))
ITEMS = {item.name: item for item in (*still_life.table().items, *still_life.room().items)}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS.keys())
def test_vertices_lie_on_the_item_and_close_it(item: Item):
    made = item_mesh(item)
    local = np.ascontiguousarray((made.vertices - item.center) @ item.rotation())
    assert np.abs(probed(pack(Stage((item,))).items, local)[0]).max() < 1e-6
    solid = trimesh.Trimesh(made.vertices, made.faces, process=False)
    assert solid.is_watertight
    assert solid.volume > 0


def test_a_ball_has_its_volume_and_a_turned_box_its_corners():
    ball = item_mesh(Item("ball", Sphere(0.5), GRAY, (1.0, 2.0, 3.0)))
    assert trimesh.Trimesh(ball.vertices, ball.faces).volume == pytest.approx(pi / 6, rel=5e-3)
    box = Item("box", Box((0.5, 0.3, 0.2), 0.02), GRAY, (1.0, 0.0, 0.0), (0, 0, 90))
    assert item_mesh(box).vertices.max(0) == pytest.approx([1.3, 0.5, 0.2], abs=1e-6)


def test_colors_are_those_of_the_texture():
    board = Item("board", Box((0.5, 0.5, 0.1)), Material(Checker((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), 2.0)))
    made = item_mesh(board)
    cell = np.floor(made.vertices[:, :2] * 2).sum(1) % 2
    clear = (np.abs(made.vertices[:, :2] * 2 - np.round(made.vertices[:, :2] * 2)) > 1e-3).all(1)
    assert (made.colors[clear, 0] == 255 * (1 - cell[clear])).all()


def test_the_file_holds_the_whole_stage(tmp_path):
    stage = Stage(still_life.objects()[-3:])
    write_mesh(tmp_path / "mesh.ply", stage)
    read, made = trimesh.load_mesh(tmp_path / "mesh.ply", process=False), mesh(stage)
    assert read.vertices == pytest.approx(made.vertices, abs=1e-6)
    assert (read.faces == made.faces).all()
    assert (read.visual.vertex_colors[:, :3] == made.colors).all()
    assert len(read.split(only_watertight=True)) == 3
