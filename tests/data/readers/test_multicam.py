import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

import made_scenes as made
from lumifield import data
from lumifield.data import Source
from lumifield.data.scene import sample_batch
from lumifield.errors import DataError
from lumifield.runtime.rng import Rng

FOCAL = 12 / math.tan(0.4)


def test_a_pyramid_as_it_is_on_disk(tmp_path):
    scene = data.read_scene(Source(made.multicam(tmp_path / "scene")), "train")
    assert data.open_capture(Source(tmp_path / "scene")).splits == ("train", "val", "test")
    assert scene.names == tuple(f"images_train/{i:03d}_d{level}.png" for i in range(3) for level in range(4))
    assert scene.cameras.size.tolist() == [[24, 16], [12, 8], [6, 4], [3, 2]] * 3
    assert np.array_equal(scene.images.image(4, (24, 16)).numpy(), made.image(1, (24, 16), 4))
    torch.testing.assert_close(scene.cameras.c2w[::4], made.ring(3).float())
    torch.testing.assert_close(scene.cameras.c2w[1::4], scene.cameras.c2w[3::4])
    assert scene.cameras.focal[:4].flatten().tolist() == pytest.approx([FOCAL / 2**k for k in (0, 0, 1, 1, 2, 2, 3, 3)])
    assert scene.cameras.center[:4].tolist() == [[12, 8], [6, 4], [3, 2], [1.5, 1]]
    assert (scene.near.tolist(), scene.far.tolist()) == ([2.0] * 12, [6.0] * 12)
    assert scene.loss_weight.tolist() == [1, 4, 16, 64] * 3
    assert scene.box.tolist() == [[-1.5] * 3, [1.5] * 3]
    assert (scene.background, scene.unbounded, scene.ndc) == ("white", False, None)
    points = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(scene.frame.to_world(points), points)


def test_one_point_is_seen_at_the_same_place_of_every_size(tmp_path):
    scene = data.open_capture(Source(made.multicam(tmp_path / "scene"))).cameras("test")
    seen, depth = scene.cameras.project(torch.tensor([[0.3, -0.2, 0.4]]))
    share = seen[:, 0] / scene.cameras.size
    torch.testing.assert_close(share[:4], share[:1].expand(4, 2), atol=1e-5, rtol=0)
    assert bool((depth > 0).all())


def test_pixels_twice_as_large_have_rays_twice_as_wide(tmp_path):
    scene = data.open_capture(Source(made.multicam(tmp_path / "scene"))).cameras("test")
    middle = [scene.rays(level).radius.max() for level in range(4)]
    assert [float(middle[k] / middle[0]) for k in range(4)] == pytest.approx([1, 2, 4, 8], rel=0.05)


def test_columns_that_differ_between_images(tmp_path):
    folder = made.multicam(tmp_path / "scene")

    def change(content):
        train = content["train"]
        train["near"][1], train["far"][2], train["lossmult"][3] = 1.5, 7, 5
        train["pix2cam"][0] = [[0.1, 0, -0.9], [0, -0.125, 1.5], [0, 0, -1]]

    made.edit(folder / "metadata.json", change)
    scene = data.open_capture(Source(folder)).cameras("train")
    assert scene.near[:3].tolist() == [2, 1.5, 2]
    assert scene.far[:3].tolist() == [6, 6, 7]
    assert scene.loss_weight[:4].tolist() == [1, 4, 16, 5]
    assert scene.cameras.focal[0].tolist() == pytest.approx([10, 8])
    assert scene.cameras.center[0].tolist() == pytest.approx([9, 12])


def test_rays_through_pixels_are_those_of_pix2cam(tmp_path):
    folder = made.multicam(tmp_path / "scene")
    columns = json.loads((folder / "metadata.json").read_text())["val"]
    scene = data.open_capture(Source(folder)).cameras("val")
    for row in range(8):
        matrix, pose = np.array(columns["pix2cam"][row]), np.array(columns["cam2world"][row])
        expected = pose[:3, :3] @ matrix @ [1.5, 0.5, 1]
        found = scene.rays(row).directions[1].numpy()
        assert found == pytest.approx(expected / np.linalg.norm(expected), abs=1e-5)


def test_weights_of_one_everywhere_are_none(tmp_path):
    folder = made.multicam(tmp_path / "scene")
    made.edit(folder / "metadata.json", lambda content: content["train"].update(lossmult=[1.0] * 12))
    scene = data.read_scene(Source(folder), "train")
    assert scene.loss_weight is None


def test_pixels_are_drawn_as_often_as_their_photograph_counts(tmp_path):
    scene = data.read_scene(Source(made.multicam(tmp_path / "scene")), "train")
    batch = sample_batch(scene, 20_000, Rng(torch.Generator().manual_seed(0)))
    # Together the images of each size weigh the same, and so do all images of a size.
    assert torch.bincount(batch.rays.image % 4) / 20_000 == pytest.approx([0.25] * 4, rel=0.05)
    assert torch.bincount(batch.rays.image) / 20_000 == pytest.approx([1 / len(scene)] * len(scene), rel=0.15)
    evenly = sample_batch(replace(scene, loss_weight=None), 20_000, Rng(torch.Generator().manual_seed(0)))
    shares = torch.bincount(evenly.rays.image % 4, minlength=4) / 20_000
    assert shares.tolist() == pytest.approx([1 / 1.328125 / 4**k for k in range(4)], rel=0.1)


def test_some_photographs_keep_their_weights(tmp_path):
    source = Source(made.multicam(tmp_path / "scene"))
    assert data.open_capture(source).read("train", rows=slice(1, 4)).loss_weight.tolist() == [4, 16, 64]
    scene = data.open_capture(source).cameras("train")
    assert scene.select([5, 0]).loss_weight.tolist() == [4, 1]
    assert scene.to("cpu").loss_weight.tolist() == scene.loss_weight.tolist()


def test_half_size(tmp_path):
    scene = data.read_scene(Source(made.multicam(tmp_path / "scene"), downscale=2), "train")
    assert scene.cameras.size[:3].tolist() == [[12, 8], [6, 4], [3, 2]]
    assert scene.cameras.focal[:2, 0].tolist() == pytest.approx([FOCAL / 2, FOCAL / 4])
    assert scene.loss_weight[:3].tolist() == [1, 4, 16]
    with pytest.raises(DataError, match="downscale: found 5"):
        data.open_capture(Source(tmp_path / "scene", downscale=5)).cameras("train")


@pytest.mark.parametrize(("asked", "got"), [("auto", "white"), ("black", "black"), ("random", "random")])
def test_backgrounds(tmp_path, asked, got):
    assert (
        data.open_capture(Source(made.multicam(tmp_path / "scene"), background=asked)).cameras("train").background
        == got
    )


def test_opaque_images(tmp_path):
    scene = data.read_scene(Source(made.multicam(tmp_path / "scene", channels=3)), "train")
    assert scene.images.pixels.shape[1] == 3
    assert scene.background == "none"


def test_images_that_are_missing_are_skipped(tmp_path, caplog):
    folder = made.multicam(tmp_path / "scene")
    (folder / "images_train/001_d2.png").unlink()
    scene = data.read_scene(Source(folder), "train")
    assert len(scene) == 11
    assert scene.loss_weight.tolist() == [1, 4, 16, 64, 1, 4, 64, 1, 4, 16, 64]
    assert "1 of 12 listed images do not exist and are skipped" in caplog.text


def set_value(column, value):
    return lambda content: content["train"][column].__setitem__(1, value)


def set_column(column, value):
    return lambda content: content["train"].update({column: value})


OTHER_FORM = r"pix2cam of images_train/000_d1\.png: found of another form"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(train=[]), r"train\.file_path: found missing or no list"),
        (lambda c: c["train"].pop("near"), r"train\.near: found missing or no list"),
        (lambda c: c["train"]["far"].pop(), r"train\.far: found 11 values long"),
        (lambda c: [column.clear() for column in c["train"].values()], r"train\.file_path: found empty"),
        (set_value("file_path", 3), r"train\.file_path\[1\]: found 3"),
        (set_value("width", 5), r"width of images_train/000_d1\.png: found 5"),
        (set_value("height", None), r"height of images_train/000_d1\.png: found None"),
        (set_value("near", 0), r"near of images_train/000_d1\.png: found 0"),
        (set_value("lossmult", -4.0), r"lossmult of images_train/000_d1\.png: found -4\.0"),
        (
            set_value("cam2world", [[1.0]]),
            r"cam2world of images_train/000_d1\.png: found shape \(1, 1\)",
        ),
        (set_value("pix2cam", "wide"), OTHER_FORM),
        (set_value("pix2cam", [[1, 2], [3]]), OTHER_FORM),
        (set_value("pix2cam", [[0, 0, 0], [0, -1, 0], [0, 0, -1]]), OTHER_FORM),
        (set_value("pix2cam", [[0.1, 0.01, 0], [0, -0.1, 0], [0, 0, -1]]), OTHER_FORM),
        (set_value("pix2cam", [[0.1, 0, 0], [0, 0.1, 0], [0, 0, 1]]), OTHER_FORM),
        (set_column("lossmult", 4), r"train\.lossmult: found missing or no list"),
    ],
)
def test_columns_that_cannot_be(tmp_path, change, message):
    folder = made.multicam(tmp_path / "scene")
    made.edit(folder / "metadata.json", change)
    with pytest.raises(DataError, match=rf"metadata\.json: {message}"):
        data.open_capture(Source(folder)).cameras("train")


def test_a_hold_out_is_refused(tmp_path):
    source = Source(made.multicam(tmp_path / "scene"), hold_out="center")
    with pytest.raises(DataError, match="hold_out: found 'center'"):
        data.open_capture(source).cameras("train")
