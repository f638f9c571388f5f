"""Multiscale versions of scenes in the Blender format."""

from __future__ import annotations

import json
from math import tan
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumifield.synthetic.multiscale import MultiscaleSettings, average_blocks, write_multiscale_scene
from refusals import refuses

COLUMNS = {
    "file_path",
    "cam2world",
    "width",
    "height",
    "focal",
    "label",
    "near",
    "far",
    "lossmult",
    "pix2cam",
}


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """Two images in train and one in test, 24 x 16, of random pixels."""
    folder, rng = tmp_path / "scene", np.random.default_rng(0)
    for split, count in (("train", 2), ("test", 1)):
        (folder / split).mkdir(parents=True)
        frames = []
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (16, 24, 4), np.uint8)).save(folder / split / f"r_{i}.png")
            frames.append({"file_path": f"./{split}/r_{i}", "transform_matrix": rng.normal(size=(4, 4)).tolist()})
        text = json.dumps({"camera_angle_x": 0.7, "frames": frames})
        (folder / f"transforms_{split}.json").write_text(text)
    return folder


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_levels_are_exact_means_rounded_down(scene: Path, tmp_path: Path):
    write_multiscale_scene(scene, tmp_path / "out")
    for i in range(2):
        original = pixels(scene / "train" / f"r_{i}.png")
        for level in range(4):
            block_size = 2**level
            averaged = pixels(tmp_path / "out" / "images_train" / f"{i:03d}_d{level}.png")
            assert averaged.shape == (16 // block_size, 24 // block_size, 4)
            for row, column, channel in np.ndindex(*averaged.shape):
                block = original[
                    row * block_size : (row + 1) * block_size, column * block_size : (column + 1) * block_size, channel
                ]
                assert averaged[row, column, channel] == sum(block.ravel().tolist()) // block_size**2


def test_num_scales_sets_the_number_of_levels(scene: Path, tmp_path: Path):
    resize_image(scene)
    write_multiscale_scene(scene, tmp_path / "out", MultiscaleSettings(num_scales=2))
    train = json.loads((tmp_path / "out" / "metadata.json").read_text())["train"]
    assert train["label"] == [0, 1] * 2
    assert train["width"] == [24, 12, 20, 10]
    assert len(list((tmp_path / "out" / "images_train").iterdir())) == 4
    with refuses("num_scales", "0"):
        MultiscaleSettings(num_scales=0)


def test_premultiplied_means_ignore_transparent_colors(scene: Path, tmp_path: Path):
    write_multiscale_scene(scene, tmp_path / "out", MultiscaleSettings(premultiply_alpha=True))
    original = pixels(scene / "train" / "r_0.png").astype(object)
    for level in range(4):
        averaged, block_size = pixels(tmp_path / "out" / "images_train" / f"000_d{level}.png"), 2**level
        for row, column in np.ndindex(*averaged.shape[:2]):
            block = original[
                row * block_size : (row + 1) * block_size, column * block_size : (column + 1) * block_size
            ].reshape(-1, 4)
            alpha = sum(block[:, 3])
            expected = [sum(block[:, i] * block[:, 3]) // max(alpha, 1) for i in range(3)]
            assert averaged[row, column].tolist() == [*expected, alpha // block_size**2]


@pytest.mark.parametrize("channels", [3, 4])
def test_premultiplying_does_not_change_opaque_images(channels: int):
    opaque = np.random.default_rng(1).integers(0, 256, (8, 8, channels), np.uint8)
    opaque[..., 3:] = 255
    assert (average_blocks(opaque, 4) == average_blocks(opaque, 4, premultiply_alpha=True)).all()
    assert (average_blocks(np.zeros((8, 8, 4), np.uint8), 8, premultiply_alpha=True) == 0).all()


def test_metadata_has_the_columns_of_the_published_converter(scene: Path, tmp_path: Path):
    write_multiscale_scene(scene, tmp_path / "out")
    metadata = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert metadata.keys() == {"train", "test"}
    train = metadata["train"]
    assert train.keys() == COLUMNS
    assert {len(column) for column in train.values()} == {8}
    assert train["file_path"] == [f"images_train/{i:03d}_d{level}.png" for i in range(2) for level in range(4)]
    assert train["label"] == [0, 1, 2, 3] * 2
    assert train["lossmult"] == [1.0, 4.0, 16.0, 64.0] * 2
    assert train["width"] == [24, 12, 6, 3] * 2
    assert train["height"] == [16, 8, 4, 2] * 2
    assert train["near"] == [2.0] * 8
    assert train["far"] == [6.0] * 8
    assert train["focal"] == pytest.approx([12 / tan(0.35) / 2**level for level in range(4)] * 2)
    frames = json.loads((scene / "transforms_train.json").read_text())["frames"]
    assert train["cam2world"] == [frame["transform_matrix"] for frame in frames for _ in range(4)]


def test_pix2cam_maps_a_point_to_the_same_ray_at_every_scale(scene: Path, tmp_path: Path):
    write_multiscale_scene(scene, tmp_path / "out")
    test = json.loads((tmp_path / "out" / "metadata.json").read_text())["test"]
    ray_directions = [np.array(m) @ [18 / 2**i, 4 / 2**i, 1] for i, m in enumerate(test["pix2cam"])]
    focal = 12 / tan(0.35)
    assert np.stack(ray_directions) == pytest.approx(np.tile([6 / focal, 4 / focal, -1], (4, 1)))


def test_images_without_alpha_stay_without_alpha(scene: Path, tmp_path: Path):
    Image.open(scene / "test" / "r_0.png").convert("RGB").save(scene / "test" / "r_0.png")
    write_multiscale_scene(scene, tmp_path / "out")
    assert pixels(tmp_path / "out" / "images_test" / "000_d3.png").shape == (2, 3, 3)


def test_a_split_without_images_is_omitted(scene: Path, tmp_path: Path):
    (scene / "transforms_val.json").write_text('{"camera_angle_x": 0.7, "frames": []}')
    write_multiscale_scene(scene, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "metadata.json").read_text()).keys() == {"train", "test"}


def test_means_of_extreme_pixels():
    assert (average_blocks(np.full((8, 8, 4), 255, np.uint8), 8) == 255).all()
    assert (average_blocks(np.zeros((8, 8, 4), np.uint8), 8) == 0).all()
    assert average_blocks(np.array([[[255], [255]], [[255], [254]]], np.uint8), 2) == 254


def truncate_list(scene: Path) -> None:
    (scene / "transforms_train.json").write_text('{"camera_angle_x": 0.7, "fra')


def remove_field(scene: Path) -> None:
    (scene / "transforms_train.json").write_text('{"frames": []}')


def truncate_image(scene: Path) -> None:
    data = (scene / "train" / "r_1.png").read_bytes()
    (scene / "train" / "r_1.png").write_bytes(data[: len(data) // 2])


def remove_image(scene: Path) -> None:
    (scene / "train" / "r_1.png").unlink()


def resize_image(scene: Path) -> None:
    Image.new("RGBA", (20, 16)).save(scene / "train" / "r_1.png")


def remove_lists(scene: Path) -> None:
    for path in scene.glob("*.json"):
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "file", "field", "found"),
    [
        (remove_lists, "scene", "list of images", "nothing"),
        (truncate_list, "transforms_train.json", "content", "unusable"),
        (remove_field, "transforms_train.json", "content", "KeyError('camera_angle_x')"),
        (truncate_image, "r_1.png", "image", "image file is truncated"),
        (remove_image, "r_1.png", "image", "nothing"),
        (resize_image, "r_1.png", "image size", "20 x 16"),
    ],
)
def test_unusable_scenes_are_refused_and_nothing_is_written(
    scene: Path, tmp_path: Path, damage, file: str, field: str, found: str
):
    damage(scene)
    with refuses(field, found, path=file):
        write_multiscale_scene(scene, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["scene"]
