from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import made_scenes as made
from lumifield import data
from lumifield.data import Source, image_files
from lumifield.data.image_files import decode_images, downscale_image, list_images, read_headers
from lumifield.data.undistort import Radial
from lumifield.errors import DataError


def decoded(*paths, size=None, masks=None):
    files = read_headers(paths, masks)
    sizes = torch.tensor(files.sizes if size is None else [size] * len(paths))
    return decode_images(files, sizes)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5), st.integers(1, 4))
def test_blocks_shrink_to_their_rounded_mean(factor, width, height, channels):
    pixels = made.image(3, (width * factor, height * factor), channels)
    got = downscale_image(pixels, (width, height))
    for y in range(height):
        for x in range(width):
            block = pixels[y * factor : (y + 1) * factor, x * factor : (x + 1) * factor].reshape(-1, channels)
            assert got[y, x].tolist() == [int(total / factor**2 + 0.5) for total in block.sum(0, dtype=int).tolist()]


def test_uneven_sizes_keep_a_ramp_in_place():
    ramp = np.broadcast_to((np.arange(60) * 4 + 2).astype(np.uint8)[None, :, None], (7, 60, 3))
    got = downscale_image(np.ascontiguousarray(ramp), (25, 3))
    # The value at x (pixel edges at whole numbers) is 4 x; windows at the border are cut off.
    expected = 4 * (np.arange(25) + 0.5) * 60 / 25
    assert np.abs(got[1, 2:-2, 0] - expected[2:-2]).max() <= 1


@pytest.mark.parametrize("size", [(4, 3), (5, 4)])
def test_colors_of_transparent_pixels_count_as_they_stand(size):
    pixels = made.image(0, (8, 6), 4)
    assert downscale_image(pixels, size)[..., :3].tolist() == downscale_image(pixels[..., :3], size).tolist()


def test_white_stays_white():
    white = np.full((100, 100, 3), 255, dtype=np.uint8)
    assert bool((downscale_image(white, (1, 1)) == 255).all())
    assert bool((downscale_image(white, (33, 7)) == 255).all())


def test_kinds_of_images(tmp_path):
    gray = made.image(0, (4, 3), 1)[..., 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(gray).convert("P").save(tmp_path / "palette.png", transparency=0)
    Image.fromarray(made.image(1, (4, 3), 2), "LA").save(tmp_path / "gray_alpha.png")
    assert decoded(tmp_path / "gray.png").pixels.shape == (12, 3)
    assert decoded(tmp_path / "palette.png").pixels.shape == (12, 4)
    both = decoded(tmp_path / "gray_alpha.png", tmp_path / "gray.png")
    assert both.pixels.shape == (24, 4)
    assert both.image(1, (4, 3))[..., 1].tolist() == gray.tolist()


def test_headers_tell_the_size_without_the_pixels(tmp_path):
    made.save(tmp_path / "a.png", made.image(0, (9, 7), 3))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    assert read_headers([tmp_path / "a.png"]).sizes == ((9, 7),)


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_images_that_are_cut_off(tmp_path, ending):
    path = tmp_path / f"a.{ending}"
    made.save(path, made.image(0, (64, 64), 3))
    path.write_bytes(path.read_bytes()[:-400])
    expected = rf"a\.{ending}: image: found damaged or cut off \(.*\)"
    with pytest.raises(DataError, match=expected):
        decoded(path)


@pytest.mark.parametrize("position", [20, 45, 300])
def test_png_files_with_a_flipped_byte(tmp_path, position):
    path = tmp_path / "a.png"
    made.save(path, made.image(0, (64, 64), 3))
    content = bytearray(path.read_bytes())
    content[position] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="image: found damaged or cut off"):
        decoded(path)


def test_files_that_are_no_images(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="image: found damaged or cut off"):
        read_headers([tmp_path / "a.png"])
    with pytest.raises(DataError, match=r"b\.png: image: found missing"):
        read_headers([tmp_path / "b.png"])


def test_masks_exclude_blocks_that_do_not_wholly_count(tmp_path):
    made.save(tmp_path / "a.png", made.image(0, (4, 4), 3))
    mask = np.full((4, 4), 7, dtype=np.uint8)
    mask[0, 3] = 0
    made.save(tmp_path / "mask.png", mask)
    whole = decoded(tmp_path / "a.png", masks=[tmp_path / "mask.png"])
    assert whole.mask.tolist() == [i != 3 for i in range(16)]
    half = decoded(tmp_path / "a.png", size=(2, 2), masks=[tmp_path / "mask.png"])
    assert half.mask.tolist() == [True, False, True, True]


def test_images_without_a_mask_count_whole(tmp_path):
    made.save(tmp_path / "a.png", made.image(0, (2, 2), 3))
    made.save(tmp_path / "mask.png", np.zeros((2, 2), dtype=np.uint8))
    images = decoded(tmp_path / "a.png", tmp_path / "a.png", masks=[tmp_path / "mask.png", None])
    assert images.mask.tolist() == [False] * 4 + [True] * 4
    assert decoded(tmp_path / "a.png").mask is None


def test_masks_of_another_size(tmp_path):
    made.save(tmp_path / "a.png", made.image(0, (4, 4), 3))
    made.save(tmp_path / "mask.png", np.zeros((2, 4), dtype=np.uint8))
    with pytest.raises(DataError, match=r"mask\.png: mask size: found 4x2"):
        decoded(tmp_path / "a.png", masks=[tmp_path / "mask.png"])


def test_only_images_are_listed_and_sorted(tmp_path):
    for name in ("b.png", "a.JPG", "c.jpeg", "._b.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png", "c.jpeg"]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """Every image is slow, and the files that are kept for it are listed."""
    monkeypatch.setattr(image_files, "MIN_CACHED_PIXELS", 1)
    monkeypatch.setenv("LUMIFIELD_CACHE", str(tmp_path / "cache"))
    return lambda: len(list((tmp_path / "cache").glob("*"))) if (tmp_path / "cache").exists() else 0


def test_what_is_kept_equals_what_is_decoded(tmp_path, kept):
    source = Source(made.blender(tmp_path / "scene"), downscale=2)
    plain = data.read_scene(replace(source, cache=False), "train").images
    assert kept() == 0
    for _ in range(2):
        again = data.read_scene(source, "train").images
        assert torch.equal(again.pixels, plain.pixels)
        assert kept() == 1
    data.read_scene(source, "val")
    data.open_capture(source).read("train", rows=slice(1, 2))
    data.read_scene(replace(source, downscale=1), "train")
    assert kept() == 4


def test_a_changed_image_is_decoded_again(tmp_path, kept):
    source = Source(made.blender(tmp_path / "scene"))
    data.read_scene(source, "train")
    made.save(tmp_path / "scene/train/r_1.png", made.image(77, (8, 6), 4))
    again = data.read_scene(source, "train").images.image(1, (8, 6))
    assert np.array_equal(again.numpy(), made.image(77, (8, 6), 4))
    assert kept() == 2


def test_another_decoder_decodes_again(tmp_path, kept, monkeypatch):
    source = Source(made.blender(tmp_path / "scene"))
    data.read_scene(source, "train")
    monkeypatch.setattr(image_files, "DECODER", 2)
    data.read_scene(source, "train")
    assert kept() == 2


def test_another_lens_is_another_image(tmp_path, kept):
    made.save(tmp_path / "a.png", made.image(0, (32, 24), 3))
    for radial in (0.06, 0.06, 0.0600001):
        files = read_headers([tmp_path / "a.png"]).with_undistortion(
            [Radial(30.0, (16.0, 12.0), radial).with_undistortion((32, 24))]
        )
        decode_images(files, torch.tensor(files.sizes))
    assert kept() == 2


def test_few_pixels_are_not_worth_a_file(tmp_path, kept, monkeypatch):
    monkeypatch.setattr(image_files, "MIN_CACHED_PIXELS", 3 * 48 + 1)
    data.read_scene(Source(made.blender(tmp_path / "scene")), "train")
    assert kept() == 0
