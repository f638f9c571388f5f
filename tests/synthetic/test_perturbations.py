"""Perturbations of Blender scenes, within the published ranges."""

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import made_scenes as made
from commands import called
from lumifield import data
from lumifield.synthetic.perturbations import ColorCast, Occluder, perturb_scene, sample_perturbations
from refusals import refuses

SIZE = (80, 60)


def pixels(path):
    return np.asarray(Image.open(path))


@pytest.fixture
def scene(tmp_path):
    return made.blender(tmp_path / "scene", size=SIZE)


@pytest.mark.parametrize("kind", ["color", "occluder", "both"])
def test_all_training_images_but_the_first_change(scene, tmp_path, kind):
    perturb_scene(scene, tmp_path / "out", kind, 0)
    changed = {p.relative_to(scene).as_posix() for p in scene.rglob("*.png")}
    changed = {name for name in changed if (scene / name).read_bytes() != (tmp_path / "out" / name).read_bytes()}
    assert changed == {"train/r_1.png", "train/r_2.png"}
    assert len(data.read_scene(data.Source(tmp_path / "out"), "test")) == 2


def test_the_record_reproduces_the_images(scene, tmp_path):
    """The color cast comes first, then the occluder; alpha changes only under the occluder."""
    perturb_scene(scene, tmp_path / "out", "both", 3)
    record = json.loads((tmp_path / "out/perturbation.json").read_text())
    assert (record["kind"], record["seed"], list(record["images"])) == ("both", 3, ["./train/r_1", "./train/r_2"])
    for name, perturbations in record["images"].items():
        expected = pixels(scene / f"{name}.png").astype(float)
        for c in range(3):
            cast = perturbations["cast"]
            expected[..., c] = 255 * np.clip(cast["scale"][c] * expected[..., c] / 255 + cast["shift"][c], 0, 1)
        occluder = perturbations["occluder"]
        assert occluder["side"] == 20
        for y in range(occluder["top"], min(occluder["top"] + 20, SIZE[1])):
            for x in range(20):
                expected[y, occluder["left"] + x] = [*occluder["colors"][x // 2], 255]
        assert np.abs(pixels(tmp_path / "out" / f"{name}.png") - expected).max() <= 0.5 + 1e-9


@given(st.integers(0, 10_000), st.integers(1, 200), st.sampled_from([800, 400, 200, 100]))
def test_samples_lie_in_the_published_ranges(seed, index, width):
    cast, occluder = sample_perturbations("both", seed, index, width)
    assert isinstance(cast, ColorCast)
    assert isinstance(occluder, Occluder)
    assert all(0.8 <= scale <= 1.2 for scale in cast.scale)
    assert all(-0.2 <= shift <= 0.2 for shift in cast.shift)
    assert occluder.side == width // 4
    assert all(width // 4 <= edge < width // 2 for edge in (occluder.left, occluder.top))
    assert np.array(occluder.colors).shape == (10, 3)
    assert sample_perturbations("color", seed, index, width) == [cast]
    assert sample_perturbations("occluder", seed, index, width) == [occluder]


def test_samples_cover_the_published_ranges():
    samples = [sample_perturbations("both", 0, index, 800) for index in range(2000)]
    assert {occluder.left for _, occluder in samples} | {occluder.top for _, occluder in samples} == set(
        range(200, 400)
    )
    scales, shifts = (np.array([getattr(cast, name) for cast, _ in samples]) for name in ("scale", "shift"))
    assert np.quantile(scales, [0, 0.5, 1]) == pytest.approx([0.8, 1.0, 1.2], abs=0.01)
    assert np.quantile(shifts, [0, 0.5, 1]) == pytest.approx([-0.2, 0.0, 0.2], abs=0.01)
    assert len({cast for cast, _ in samples}) == 2000


def test_color_casts_of_extreme_pixels():
    white = np.full((1, 1, 4), 255, np.uint8)
    assert ColorCast((1.2,) * 3, (0.2,) * 3).apply(white).tolist() == [[[255] * 4]]
    assert ColorCast((0.8,) * 3, (-0.2,) * 3).apply(0 * white).tolist() == [[[0] * 4]]
    assert ColorCast((0.8, 1.0, 1.2), (0.0,) * 3).apply(white)[0, 0].tolist() == [204, 255, 255, 255]


def test_an_occluder_is_clipped_at_the_image_edge():
    occluded = Occluder(3, 2, 4, ((9, 9, 9), (7, 7, 7))).apply(np.zeros((4, 6, 3), np.uint8))
    assert occluded[..., 0].tolist() == [[0] * 6, [0] * 6, [0, 0, 0, 9, 9, 7], [0, 0, 0, 9, 9, 7]]


def test_equal_seeds_give_equal_scenes(scene, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        called("synthesize-data", "perturbed", "--from", scene, "--out", tmp_path / name, "--seed", str(seed))
    a, b, c = ((tmp_path / name / "train/r_1.png").read_bytes() for name in "abc")
    assert a == b != c


def test_images_without_alpha(tmp_path):
    perturb_scene(made.blender(tmp_path / "scene", size=SIZE, channels=3), tmp_path / "out", "both", 0)
    assert pixels(tmp_path / "out/train/r_1.png").shape == (60, 80, 3)


def remove_list(scene):
    (scene / "transforms_train.json").unlink()


def remove_image(scene):
    (scene / "train/r_1.png").unlink()


@pytest.mark.parametrize(
    ("damage", "file", "field"),
    [
        (shutil.rmtree, "transforms_train.json", "file"),
        (remove_list, "transforms_train.json", "file"),
        (remove_image, "r_1.png", "image"),
    ],
)
def test_incomplete_scenes_are_refused(scene, tmp_path, damage, file, field):
    damage(scene)
    with refuses(field, "nothing", path=file):
        perturb_scene(scene, tmp_path / "out", "both", 0)
    assert [path for path in tmp_path.iterdir() if path.name != "scene"] == []
