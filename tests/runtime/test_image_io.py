import math
import os
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lumifield.errors import DataError
from lumifield.methods.nlr import source_views
from lumifield.runtime import colormaps, image_io, image_metrics
from lumifield.runtime.files import replacing


def test_rounding_to_8_bit_takes_the_nearest_level_and_clips():
    values = torch.tensor([-1.0, 0.0, 0.49 / 255, 0.51 / 255, 254.51 / 255, 1.0, 7.0, math.nan, math.inf])
    assert image_io.to_uint8(values).tolist() == [0, 0, 0, 1, 255, 255, 255, 0, 255]


def test_8_bit_images_survive_the_way_to_floats_and_back():
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(image_io.to_uint8(levels.float() / 255), levels)


@pytest.mark.parametrize("difference", [1.0, 0.1, 0.01, 0.001])
def test_psnr_of_a_constant_difference(difference):
    a = torch.zeros(5, 7, 3)
    mse = image_metrics.mean_squared_error(a, a + difference)
    assert image_metrics.psnr(mse) == pytest.approx(-20 * math.log10(difference), abs=1e-4)


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 3), st.integers(0, 2**20))
def test_an_image_goes_on_beyond_its_solid_pixels(height, width, by, seed):
    source = torch.Generator().manual_seed(seed)
    image = torch.rand(2, height, width, generator=source)
    solid = torch.rand(height, width, generator=source) < 0.2
    found, values, known = source_views.extend_beyond_mask(image, solid, by), image.clone(), solid.clone()
    for _ in range(by):
        before, reached = values.clone(), known.clone()
        for row in range(height):
            for column in range(width):
                around = slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2)
                if not reached[row, column] and reached[around].any():
                    values[:, row, column] = before[:, *around][:, reached[around]].mean(-1)
                    known[row, column] = True
    torch.testing.assert_close(found, values)


def test_psnr_of_equal_images_is_the_limit():
    a = torch.rand(3, 4, 3)
    assert image_metrics.psnr(image_metrics.mean_squared_error(a, a)) == image_metrics.PSNR_LIMIT
    assert image_metrics.psnr(1e-30) == image_metrics.PSNR_LIMIT


def test_mean_squared_error_counts_only_the_mask():
    a, b = torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)
    b[0, 0], b[1, 1] = 1.0, 0.5
    mask = torch.tensor([[False, True], [True, True]])
    assert image_metrics.mean_squared_error(a, b) == pytest.approx((3 * 1 + 3 * 0.25) / 12)
    assert image_metrics.mean_squared_error(a, b, mask) == pytest.approx(0.25 / 3)
    assert math.isnan(image_metrics.mean_squared_error(a, b, torch.zeros(2, 2, dtype=torch.bool)))


@pytest.mark.parametrize("anchors", [colormaps.SPECTRUM, colormaps.HEAT])
def test_color_maps_start_and_end_at_their_anchors(anchors):
    colors = colormaps.apply_colormap(
        torch.tensor([-9.0, 2.0, 4.0, 99.0, math.nan, math.inf, -math.inf]), 2.0, 4.0, anchors
    )
    first, last = torch.tensor(anchors[0]), torch.tensor(anchors[-1])
    for row, expected in zip(colors, [first, first, last, last, first], strict=False):
        torch.testing.assert_close(row, expected)
    assert (colors >= 0).all()
    assert (colors <= 1).all()


def test_color_maps_interpolate_between_neighboring_anchors():
    halfway = colormaps.apply_colormap(torch.tensor([0.5 / 4]), 0.0, 1.0, colormaps.HEAT)[0]
    torch.testing.assert_close(halfway, (torch.tensor(colormaps.HEAT[0]) + torch.tensor(colormaps.HEAT[1])) / 2)


def test_the_spectrum_runs_from_blue_to_red_and_heat_from_dark_to_bright():
    cold, warm = colormaps.apply_colormap(torch.tensor([0.2, 0.8]), 0.0, 1.0)
    assert cold[2] > cold[0]
    assert warm[0] > warm[2]
    luminance = colormaps.apply_colormap(torch.linspace(0, 1, 100), 0.0, 1.0, colormaps.HEAT) @ torch.tensor(
        [0.21, 0.72, 0.07]
    )
    assert (luminance.diff() > 0).all()


def test_the_sinebow_comes_round_with_every_turn():
    red, green, blue = colormaps.sinebow(torch.tensor([0.0, 1 / 3, 2 / 3]))
    for color, expected in ((red, [1, 0.25, 0.25]), (green, [0.25, 1, 0.25]), (blue, [0.25, 0.25, 1])):
        torch.testing.assert_close(color, torch.tensor(expected, dtype=torch.float32))
    turns = torch.linspace(-2, 2, 97)
    torch.testing.assert_close(colormaps.sinebow(turns + 1), colormaps.sinebow(turns), atol=1e-5, rtol=0)
    torch.testing.assert_close(colormaps.sinebow(turns).sum(-1), torch.full((97,), 1.5))
    odd = colormaps.sinebow(torch.tensor([math.nan, math.inf, -math.inf]))
    torch.testing.assert_close(odd, colormaps.sinebow(torch.zeros(3)))


def test_a_map_over_no_range_is_finite():
    assert colormaps.apply_colormap(torch.tensor([3.0, 4.0]), 3.0, 3.0).isfinite().all()
    assert colormaps.apply_colormap(torch.zeros(0), 0.0, 1.0).shape == (0, 3)


def test_the_range_leaves_out_the_tails_and_what_is_not_finite():
    values = torch.cat([torch.arange(101.0), torch.tensor([math.nan, math.inf, -math.inf])])
    assert colormaps.quantile_range(values) == pytest.approx((2.0, 98.0))
    assert colormaps.quantile_range(torch.tensor([math.nan])) == (0.0, 1.0)
    assert colormaps.quantile_range(torch.zeros(0)) == (0.0, 1.0)


def test_pfm_bytes_of_two_rows(tmp_path):
    path = tmp_path / "a.pfm"
    image_io.write_pfm(path, torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
    assert path.read_bytes() == b"Pf\n3 2\n-1.000000\n" + struct.pack("<6f", 4, 5, 6, 1, 2, 3)


def test_pfm_of_big_endian_color(tmp_path):
    path = tmp_path / "a.pfm"
    path.write_bytes(b"PF\n1 2\n1.0\n" + struct.pack(">6f", 4, 5, 6, 1, 2, 3))
    assert image_io.read_pfm(path).tolist() == [[[1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0]]]


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from([(), (3,)]), st.integers(0, 99))
def test_pfm_round_trip(tmp_path_factory, height, width, channels, seed):
    path = tmp_path_factory.mktemp("pfm") / "a.pfm"
    values = torch.randn(height, width, *channels, generator=torch.Generator().manual_seed(seed)) * 1e20
    image_io.write_pfm(path, values)
    assert torch.equal(image_io.read_pfm(path), values)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P6\n1 1\n255\nabc", "first line: found 'P6'"),
        (b"Pf\n1 1", r"header: found an incomplete header"),
        (b"Pf\none 1\n-1\nabcd", "header: found 'one 1 -1'"),
        (b"Pf\n0 1\n-1\n", "expected width, height and scale"),
        (b"Pf\n2 2\n-1\nabcd", r"data: found 4 bytes"),
    ],
)
def test_a_broken_pfm_is_named(tmp_path, content, message):
    path = tmp_path / "a.pfm"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        image_io.read_pfm(path)


def test_a_missing_pfm_is_named(tmp_path):
    with pytest.raises(DataError, match=r"file: found nothing"):
        image_io.read_pfm(tmp_path / "none.pfm")


def test_npy_and_bytes_hold_the_top_row_first(tmp_path):
    values = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    image_io.write_npy(tmp_path / "a.npy", values)
    image_io.write_bytes(tmp_path / "a", values)
    assert np.load(tmp_path / "a.npy").dtype == np.float32
    assert np.load(tmp_path / "a.npy").tolist() == values.tolist()
    assert (tmp_path / "a").read_bytes() == struct.pack("<4f", 1, 2, 3, 4)


def test_png_round_trip(tmp_path):
    color = torch.arange(24, dtype=torch.uint8).reshape(2, 4, 3)
    image_io.write_png(tmp_path / "new" / "a.png", color)
    assert np.asarray(Image.open(tmp_path / "new" / "a.png")).tolist() == color.tolist()
    image_io.write_png(tmp_path / "b.png", color[..., 0])
    assert np.asarray(Image.open(tmp_path / "b.png")).tolist() == color[..., 0].tolist()


def test_what_fails_halfway_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_an_output_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"output: found an error \(file exists\)"):
        image_io.write_png(tmp_path / "file" / "a.png", torch.zeros(1, 1, 3, dtype=torch.uint8))


def test_a_full_disk_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="no space left on device"):
        image_io.write_npy(tmp_path / "a.npy", torch.zeros(1, 1))
    assert os.listdir(tmp_path) == []
