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
from lumifield.export import WebExport
from lumifield.export.voxel_baking import BRICK_SIZE, BakedVoxels
from lumifield.export.voxel_grid import SparseVoxels, VoxelGrid
from lumifield.export.web import brick_distances, brick_rows, build_page, find_occupied_bricks, quantize_voxels
from lumifield.geometry.contraction import SceneBox
from lumifield.rendering.camera_paths import overview_camera
from refusals import refuses
from scenes import written

SMALL = WebExport(resolution=16, num_rays=500)
CORNERS = ((9, 3, 2), (8, 3, 2), (31, 31, 31), (16, 16, 16))


def few_voxels(resolution: int = 32) -> BakedVoxels:
    """Voxels at `CORNERS` (z, y, x) with different colors."""
    width = resolution + 1
    index = sorted(x + width * (y + width * z) for z, y, x in CORNERS)
    alpha = torch.tensor([0.2, 0.4, 0.6, 0.8])
    coefficients = torch.zeros(5, 4, 3)
    coefficients[1:] = torch.arange(48).view(4, 4, 3) / 128 - 0.1
    grid = VoxelGrid(SceneBox(torch.tensor([[-1.0] * 3, [1.0] * 3]), False), resolution)
    return BakedVoxels(SparseVoxels.from_corners(grid, torch.tensor(index), alpha), coefficients)


def page_element(page: str, name: str) -> str:
    return re.search(rf'id="{name}">(.*?)</script>', page, re.DOTALL)[1]


def parse_page(page: str) -> tuple[dict, np.ndarray, np.ndarray]:
    """Metadata of a page, distances of its bricks, and its values (channel, brick, corner)."""
    metadata = json.loads(page_element(page, "metadata"))
    content = np.frombuffer(gzip.decompress(base64.b64decode(page_element(page, "voxels"))), np.uint8)
    num_bricks = (metadata["resolution"] // BRICK_SIZE) ** 3
    values = content[num_bricks:].reshape(13, metadata["numBricks"], BRICK_SIZE**3)
    return metadata, content[:num_bricks], values


def test_a_page_holds_the_values_of_every_corner():
    baked = few_voxels()
    metadata, distances, values = parse_page(build_page(baked, fog.bounded()))
    n = metadata["resolution"] // BRICK_SIZE
    slots = {int(brick): slot for slot, brick in enumerate(np.flatnonzero(distances == 0))}
    assert len(slots) == metadata["numBricks"]
    found = {}
    for (bz, by, bx), (z, y, x) in itertools.product(np.ndindex(n, n, n), np.ndindex(8, 8, 8)):
        slot = slots.get(bx + n * (by + n * bz))
        if slot is not None and values[:, slot, x + 8 * (y + 8 * z)].any():
            found[8 * bz + z, 8 * by + y, 8 * bx + x] = values[:, slot, x + 8 * (y + 8 * z)]
    assert set(found) == set(CORNERS)
    for (z, y, x), stored in found.items():
        row = int(baked.voxels.row[z, y, x])
        signed = stored.astype(np.int8).astype(float)
        assert stored[0] / 255 == pytest.approx(float(baked.voxels.alpha[row]), abs=1 / 500)
        np.testing.assert_allclose(signed[1:4] / 128, baked.coefficients[row, 0].numpy(), atol=1 / 250)
        np.testing.assert_allclose(signed[4:] / 256, baked.coefficients[row, 1:].flatten().numpy(), atol=1 / 500)


def test_bricks_with_opacity_at_a_corner_of_a_cell_are_occupied():
    bricks = find_occupied_bricks(few_voxels().voxels)
    expected = {(z // 8, y // 8, x // 8) for z, y, x in CORNERS}
    # The corner at 8 also belongs to the brick before it, and the one at 16 to all eight bricks around it.
    expected |= {(0, 0, 0)} | set(itertools.product((1, 2), repeat=3))
    assert set(map(tuple, bricks.nonzero().tolist())) == expected
    assert brick_rows(few_voxels().voxels, bricks).shape == (len(expected), 512)


def test_distances_to_the_nearest_occupied_brick():
    bricks = fog.rng().uniform(6**3, 1).view(6, 6, 6) > 0.97
    occupied = bricks.nonzero()
    distances = brick_distances(bricks)
    for brick in np.ndindex(6, 6, 6):
        assert distances[brick] == int((occupied - torch.tensor(brick)).abs().amax(-1).min())


def test_colors_are_clamped_to_eight_bits_and_empty_space_is_zero():
    baked = few_voxels()
    coefficients = baked.coefficients.clone()
    coefficients[1], coefficients[2] = 9.0, -9.0
    values = quantize_voxels(replace(baked, coefficients=coefficients))
    assert not values[0].any()
    assert values[1, 1:].tolist() == [191] * 3 + [127] * 9
    assert values[2, 1:].tolist() == [192] * 3 + [128] * 9


def test_metadata_is_in_world_coordinates():
    rotation = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    scene = replace(fog.bounded(), frame=Frame(rotation, torch.tensor([1.0, 2.0, 3.0]), 5.0))
    metadata, _, _ = parse_page(build_page(few_voxels(), scene))
    np.testing.assert_allclose(metadata["c2w"], scene.frame.poses_to_world(overview_camera(scene).c2w)[0], rtol=1e-6)
    # The cameras are 4 scene units of 5 world units from the ball.
    assert metadata["distance"] == pytest.approx(20, rel=1e-3)
    assert metadata["frame"] == {"rotation": rotation.tolist(), "translation": [1, 2, 3], "scale": 5}
    assert metadata["background"] == [1, 1, 1]
    assert (metadata["near"], metadata["ndc"]) == (0, None)


def test_a_page_makes_no_requests():
    page = build_page(few_voxels(), fog.bounded())
    assert "default-src 'none'" in page
    source = page.replace(page_element(page, "voxels"), "")
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|import\(|url\(|@import|{{|}}\s*$", source)


def test_the_command_writes_a_page(tmp_path, capsys):
    called(*train(written(tmp_path / "data").data, tmp_path / "run"))
    capsys.readouterr()
    out = tmp_path / "made" / "page.html"
    called("export", "web", tmp_path / "run", "--out", out, "--resolution", "16", "--num-rays", "500")
    assert capsys.readouterr().out.strip().endswith("page.html")
    metadata, _, values = parse_page(out.read_text())
    assert metadata["resolution"] == 16
    assert values.shape[1] > 0
    assert [path.name for path in out.parent.iterdir()] == ["page.html"]


@pytest.mark.parametrize(("name", "extension"), [("page.txt", "'.txt'"), ("page", "''")])
def test_an_unknown_extension_is_refused_before_baking(tmp_path, name, extension):
    run = fog.run(tmp_path, fog.ball, fog.bounded())
    with refuses("extension", found=extension):
        SMALL.write(run, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_scene_leaves_no_file(tmp_path):
    with refuses("scene", found="no surface"):
        SMALL.write(fog.run(tmp_path, fog.nothing, fog.bounded()), tmp_path / "page.html")
    assert list(tmp_path.iterdir()) == []
