import base64
import gzip
import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

import fog
from commands import called, train
from lumifield.data.scene import Frame
from lumifield.errors import DataError
from lumifield.export import WebExport
from lumifield.export.baking import BRICK, Baked
from lumifield.export.voxel_grid import VoxelLattice, Voxels
from lumifield.export.web import brick_distances, brick_rows, build_page, occupied_bricks, quantize_voxels
from lumifield.geometry.contraction import SceneBox
from lumifield.rendering.camera_paths import overview_camera
from scenes import written

SMALL = WebExport(resolution=16, num_rays=500)
CORNERS = ((9, 3, 2), (8, 3, 2), (31, 31, 31), (16, 16, 16))


def speckled(side: int = 32) -> Baked:
    """Matter at a few corners (z, y, x), whose light tells them apart."""
    index = sorted(x + (side + 1) * (y + (side + 1) * z) for z, y, x in CORNERS)
    alpha = torch.tensor([0.2, 0.4, 0.6, 0.8])
    light = torch.zeros(5, 4, 3)
    light[1:] = torch.arange(48).view(4, 4, 3) / 128 - 0.1
    lattice = VoxelLattice(SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]), False), side)
    return Baked(Voxels.of(lattice, torch.tensor(index), alpha), light)


def parts(page: str) -> tuple[dict, np.ndarray, np.ndarray]:
    """What a page knows: about itself, the distances of its bricks, their numbers (channel, brick, corner)."""
    about = json.loads(re.search(r'id="about">(.*?)</script>', page, re.DOTALL)[1])
    packed = re.search(r'id="voxels">(.*?)</script>', page, re.DOTALL)[1]
    content = np.frombuffer(gzip.decompress(base64.b64decode(packed)), np.uint8)
    cells = (about["side"] // BRICK) ** 3
    return about, content[:cells], content[cells:].reshape(13, about["bricks"], BRICK**3)


def test_a_page_holds_every_corner_where_it_belongs():
    baked = speckled()
    about, away, numbers = parts(build_page(baked, fog.bounded()))
    count = about["side"] // BRICK
    slots = {int(place): slot for slot, place in enumerate(np.flatnonzero(away == 0))}
    assert len(slots) == about["bricks"]
    found = {}
    for (bz, by, bx), (z, y, x) in itertools.product(np.ndindex(count, count, count), np.ndindex(8, 8, 8)):
        slot = slots.get(bx + count * (by + count * bz))
        if slot is not None and numbers[:, slot, x + 8 * (y + 8 * z)].any():
            found[8 * bz + z, 8 * by + y, 8 * bx + x] = numbers[:, slot, x + 8 * (y + 8 * z)]
    assert set(found) == set(CORNERS)
    for (z, y, x), told in found.items():
        row = int(baked.voxels.row[z, y, x])
        signed = told.astype(np.int8).astype(float)
        assert told[0] / 255 == pytest.approx(float(baked.voxels.alpha[row]), abs=1 / 500)
        np.testing.assert_allclose(signed[1:4] / 128, baked.light[row, 0].numpy(), atol=1 / 250)
        np.testing.assert_allclose(signed[4:] / 256, baked.light[row, 1:].flatten().numpy(), atol=1 / 500)


def test_bricks_with_matter_at_a_corner_of_a_cell_are_looked_at():
    bricks = occupied_bricks(speckled().voxels)
    expected = {(z // 8, y // 8, x // 8) for z, y, x in CORNERS}
    # The corner at 8 is also one of the cell before it, and that at 16 of all eight bricks about it.
    expected |= {(0, 0, 0)} | set(itertools.product((1, 2), repeat=3))
    assert set(map(tuple, bricks.nonzero().tolist())) == expected
    assert brick_rows(speckled().voxels, bricks).shape == (len(expected), 512)


def test_distances_are_those_to_the_nearest_brick():
    bricks = fog.rng().uniform(6**3, 1).view(6, 6, 6) > 0.97
    places = bricks.nonzero()
    away = brick_distances(bricks)
    for place in np.ndindex(6, 6, 6):
        expected = int((places - torch.tensor(place)).abs().amax(-1).min())
        assert away[place] == expected


def test_light_beyond_eight_bits_is_cut_and_empty_space_is_noughts():
    baked = speckled()
    light = baked.light.clone()
    light[1], light[2] = 9.0, -9.0
    numbers = quantize_voxels(replace(baked, light=light))
    assert not numbers[0].any()
    assert numbers[1, 1:].tolist() == [191] * 3 + [127] * 9
    assert numbers[2, 1:].tolist() == [192] * 3 + [128] * 9


def test_a_page_speaks_in_world_coordinates():
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    scene = replace(fog.bounded(), frame=Frame(turn, torch.tensor([1.0, 2.0, 3.0]), 5.0))
    about, _, _ = parts(build_page(speckled(), scene))
    np.testing.assert_allclose(about["c2w"], scene.frame.poses_to_world(overview_camera(scene).c2w)[0], rtol=1e-6)
    # The cameras are 4 units from the ball, of 5 units of the world each.
    assert about["distance"] == pytest.approx(20, rel=1e-3)
    assert about["frame"] == {"rotation": turn.tolist(), "translation": [1, 2, 3], "scale": 5}
    assert about["background"] == [1, 1, 1]
    assert (about["near"], about["ndc"]) == (0, None)


def test_a_page_asks_for_nothing():
    page = build_page(speckled(), fog.bounded())
    assert "default-src 'none'" in page
    shown = page.replace(re.search(r'id="voxels">(.*?)</script>', page, re.DOTALL)[1], "")
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(|url\(|@import|{{|}}\s*$", shown)


def test_the_command_writes_a_page(tmp_path, capsys):
    called(*train(written(tmp_path / "data").data, tmp_path / "run"))
    capsys.readouterr()
    out = tmp_path / "made" / "page.html"
    called("export", "web", tmp_path / "run", "--out", out, "--resolution", "16", "--num-rays", "500")
    assert capsys.readouterr().out.strip().endswith("page.html")
    about, _, numbers = parts(out.read_text())
    assert about["side"] == 16
    assert numbers.shape[1] > 0
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("name", "words"),
    [("page.txt", r"extension: found '\.txt'"), ("page", r"extension: found ''")],
)
def test_an_unknown_ending_is_refused_before_the_work(tmp_path, name, words):
    run = fog.run(tmp_path, fog.ball, fog.bounded())
    with pytest.raises(DataError, match=words):
        SMALL.write(run, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_scene_leaves_nothing_behind(tmp_path):
    with pytest.raises(DataError, match="empty"):
        SMALL.write(fog.run(tmp_path, fog.nothing, fog.bounded()), tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
