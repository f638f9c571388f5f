import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lumifield.data.flow_pairs import ImagePair, list_pairs
from lumifield.errors import DataError
from lumifield.runtime.optical_flow import write_flow
from lumifield.synthetic import FlowPairs, synthesize_data

SIZE = (6, 4)


def save(path: Path, level: int, size=SIZE) -> None:
    Image.fromarray(np.full((size[1], size[0], 3), level, np.uint8)).save(path)


def one(folder: Path) -> Path:
    """A pair of FlyingChairs whose flow is one pixel to the right."""
    save(folder / "00001_img1.ppm", 1)
    save(folder / "00001_img2.ppm", 2)
    write_flow(folder / "00001_flow.flo", np.tile(np.float32([1, 0]), (SIZE[1], SIZE[0], 1)))
    return folder


def two(folder: Path) -> Path:
    """A pair of FlyingChairs2 whose flow back is two pixels up, hidden in the first column."""
    save(folder / "0000007-img_0.png", 1)
    save(folder / "0000007-img_1.png", 2)
    write_flow(folder / "0000007-flow_10.flo", np.tile(np.float32([0, -2]), (SIZE[1], SIZE[0], 1)))
    hidden = np.zeros((SIZE[1], SIZE[0]), np.uint8)
    hidden[:, 0] = 255
    Image.fromarray(hidden).save(folder / "0000007-occ_10.png")
    return folder


def test_flow_forwards_finds_the_first_image_in_the_second(tmp_path):
    (found,) = list_pairs(one(tmp_path))
    pair = found.read()
    assert (int(pair.target[0, 0, 0]), int(pair.source[0, 0, 0])) == (1, 2)
    assert pair.flow[0, 0].tolist() == [1, 0]
    # What moves out of the image is not visible.
    assert torch.equal(pair.visible, torch.arange(6).expand(4, 6) < 5)


def test_flow_back_finds_the_second_image_in_the_first(tmp_path):
    (found,) = list_pairs(two(tmp_path))
    pair = found.read()
    assert (int(pair.target[0, 0, 0]), int(pair.source[0, 0, 0])) == (2, 1)
    expected = (torch.arange(4)[:, None] >= 2) & (torch.arange(6) > 0)
    assert torch.equal(pair.visible, expected)
    assert pair.flow[~expected].abs().max() == 0


def test_unknown_flow_is_not_visible(tmp_path):
    one(tmp_path)
    flow = np.zeros((4, 6, 2), np.float32)
    flow[2, 3] = 1.7e9
    write_flow(tmp_path / "00001_flow.flo", flow)
    pair = list_pairs(tmp_path)[0].read()
    assert (~pair.visible).nonzero().tolist() == [[2, 3]]


def test_files_that_do_not_belong_together(tmp_path):
    with pytest.raises(DataError, match=r"pairs: found missing"):
        list_pairs(tmp_path)
    two(tmp_path)
    save(tmp_path / "0000007-img_0.png", 1, (6, 5))
    with pytest.raises(DataError, match=r"img_0\.png: size: found 6x5"):
        list_pairs(tmp_path)[0].read()
    (tmp_path / "0000007-occ_10.png").unlink()
    with pytest.raises(DataError, match=r"occ_10\.png: file: found missing"):
        list_pairs(tmp_path)
    with pytest.raises(DataError, match="folder: found missing"):
        list_pairs(tmp_path / "nowhere")


def off(pair: ImagePair) -> float:
    """The median difference of the target and the source that the flow brings to it [levels]."""
    height, width = pair.visible.shape
    x = torch.arange(width) + pair.flow[..., 0]
    y = torch.arange(height)[:, None] + pair.flow[..., 1]
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    source = pair.source.permute(2, 0, 1)[None].float()
    warped = torch.nn.functional.grid_sample(source, grid[None], align_corners=True)[0].permute(1, 2, 0)
    return float((warped - pair.target).abs()[pair.visible].median())


@pytest.mark.parametrize("layout", ["flying_chairs_2", "flying_chairs"])
def test_synthetic_pairs(tmp_path, layout):
    synthesize_data(FlowPairs(num_pairs=3, image_width=128, format=layout), tmp_path / "pairs")
    found = [files.read() for files in list_pairs(tmp_path / "pairs")]
    assert len(found) == 3
    for pair in found:
        still = ImagePair(pair.source, pair.target, torch.zeros_like(pair.flow), pair.visible)
        assert off(pair) < 2
        assert off(still) > 2 * off(pair)
        assert 0.5 < float(pair.visible.float().mean()) < 1


@pytest.mark.skipif("LUMIFIELD_DATA" not in os.environ, reason="LUMIFIELD_DATA names no folder of real images")
def test_real_pairs():
    found = [files.read() for files in list_pairs(Path(os.environ["LUMIFIELD_DATA"]) / "flying_chairs")]
    assert [pair.flow.shape for pair in found] == [(384, 512, 2)] * 2
    assert max(off(pair) for pair in found) <= 1
