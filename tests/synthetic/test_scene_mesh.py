"""Scene meshes lie on the surfaces, are watertight, and survive a round trip to disk."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import trimesh

from lumifield.synthetic import still_life
from lumifield.synthetic.scene_description import Checker, Item, Material, SolidColor, SyntheticScene, pack_scene
from lumifield.synthetic.scene_mesh import build_item_mesh, build_scene_mesh, query_item, write_scene_mesh
from lumifield.synthetic.shapes import Box, Sphere

GRAY = Material(SolidColor((0.5, 0.5, 0.5)))
ITEMS = {item.name: item for item in (*still_life.make_table_scene().items, *still_life.make_room_scene().items)}


@pytest.mark.parametrize("item", ITEMS.values(), ids=ITEMS.keys())
def test_item_meshes_are_watertight_and_on_the_surface(item: Item):
    mesh = build_item_mesh(item)
    local = np.ascontiguousarray((mesh.vertices - item.center) @ item.rotation_matrix())
    assert np.abs(query_item(pack_scene(SyntheticScene((item,))).items, local)[0]).max() < 1e-6
    solid = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    assert solid.is_watertight
    assert solid.volume > 0


def test_a_ball_has_its_volume_and_a_rotated_box_its_corners():
    ball = build_item_mesh(Item("ball", Sphere(0.5), GRAY, (1.0, 2.0, 3.0)))
    assert trimesh.Trimesh(ball.vertices, ball.faces).volume == pytest.approx(pi / 6, rel=5e-3)
    box = Item("box", Box((0.5, 0.3, 0.2), 0.02), GRAY, (1.0, 0.0, 0.0), (0, 0, 90))
    assert build_item_mesh(box).vertices.max(0) == pytest.approx([1.3, 0.5, 0.2], abs=1e-6)


def test_vertex_colors_are_those_of_the_texture():
    board = Item("board", Box((0.5, 0.5, 0.1)), Material(Checker((1.0, 1.0, 1.0), (0.0, 0.0, 0.0), 2.0)))
    mesh = build_item_mesh(board)
    square = np.floor(mesh.vertices[:, :2] * 2).sum(1) % 2
    is_clear = (np.abs(mesh.vertices[:, :2] * 2 - np.round(mesh.vertices[:, :2] * 2)) > 1e-3).all(1)
    assert (mesh.colors[is_clear, 0] == 255 * (1 - square[is_clear])).all()


def test_the_file_contains_the_whole_scene(tmp_path):
    scene = SyntheticScene(still_life.make_tabletop_items()[-3:])
    write_scene_mesh(tmp_path / "mesh.ply", scene)
    loaded, mesh = trimesh.load_mesh(tmp_path / "mesh.ply", process=False), build_scene_mesh(scene)
    assert loaded.vertices == pytest.approx(mesh.vertices, abs=1e-6)
    assert (loaded.faces == mesh.faces).all()
    assert (loaded.visual.vertex_colors[:, :3] == mesh.colors).all()
    assert len(loaded.split(only_watertight=True)) == 3
