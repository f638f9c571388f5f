import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

import made_objects
import made_scenes as made
from analytic import CPU, Ball, around, photograph, run_of, scene_of
from lumifield import data
from lumifield.data import Source
from lumifield.data.scene import Images
from lumifield.errors import DataError
from lumifield.evaluation import evaluate, metrics
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import read_run
from lumifield.runtime.image_io import to_uint8
from lumifield.runtime.image_metrics import PSNR_LIMIT
from lumifield.training import Train
from lumifield.training.job import TrainingJob, run_training
from scenes import NLR

KEYS = {
    "psnr",
    "psnr_masked_image",
    "mask_iou",
    "chamfer",
    "ssim",
    "lpips",
    "lpips_reason",
    "average_error",
    "n_images",
    "n_train_images",
    "per_image",
    "per_scale",
    "train_seconds",
    "train_rays_per_second",
    "render_seconds",
    "render_rays_per_second",
    "method",
    "data",
    "split",
    "protocol",
}
PROTOCOL = {
    "background",
    "resolution",
    "pixel_centers",
    "split_rule",
    "clipping",
    "rounding_8bit",
    "lpips_net",
    "embedding_fit",
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(evaluate, "load_lpips", lambda device, download: (None, "offline"))


@pytest.fixture
def run(tmp_path):
    scene = scene_of(around(3))
    (tmp_path / "data").mkdir()
    source = photograph(tmp_path / "data", scene, "test")
    return run_of(tmp_path / "run", Ball(), {"train": scene, "test": scene}, source)


def pictured(scene, shift, mask=None):
    """The scene with images of `Ball` whose levels are off by `shift` and wrap outside the mask."""
    views = [to_uint8(render_view(Ball(), scene, i, device=CPU).rgb) for i in range(len(scene))]
    pixels = torch.cat([view.reshape(-1, 3) for view in views]).int()
    pixels = torch.where(pixels > 127, pixels - shift, pixels + shift).to(torch.uint8)
    if mask is not None:
        pixels[~mask] = 255 - pixels[~mask]
    per_view = len(pixels) // len(scene)
    offsets = torch.arange(len(scene) + 1) * per_view
    return replace(scene, images=Images(pixels, offsets, mask))


def test_a_method_scores_the_limit_on_its_own_images(run):
    metrics = evaluate.evaluate(run)
    # Cameras that went through a file are not the same to the last bit, so a pixel may be off by one level.
    assert 60 < metrics.psnr <= PSNR_LIMIT
    assert metrics.ssim == pytest.approx(1.0, abs=1e-4)


def test_metrics_json_has_every_key_and_is_what_is_returned(run):
    metrics = evaluate.evaluate(run)
    written = json.loads((run.folder / "eval" / "test" / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert written == metrics.to_json()
    assert written.keys() >= KEYS
    assert metrics.protocol.keys() >= PROTOCOL
    assert (metrics.n_images, metrics.n_train_images, metrics.method) == (3, 5, "instant")
    assert metrics.train_rays_per_second == 500
    assert metrics.render_rays_per_second * metrics.render_seconds == pytest.approx(3 * 32 * 24)
    assert metrics.lpips is None
    assert metrics.lpips_reason == "offline"
    names = data.read_scene(run.source, "test").names
    assert tuple(image.name for image in metrics.per_image) == names


def test_scores_are_also_given_for_each_size(run, tmp_path):
    folder = made.multicam(tmp_path / "scene", size=(32, 24), counts=(2, 1, 2))
    source = data.Source(folder)
    run = replace(
        run, source=source, scenes={split: data.open_capture(source).cameras(split) for split in ("train", "test")}
    )
    metrics = evaluate.evaluate(run, save_images=False)
    assert list(metrics.per_scale) == ["32x24", "16x12", "8x6", "4x3"]
    for level, scores in enumerate(metrics.per_scale.values()):
        own = [image.psnr for image in metrics.per_image[level::4]]
        assert scores.psnr == pytest.approx(sum(own) / 2)
    assert metrics.per_scale["4x3"].ssim is None
    assert metrics.protocol["split_rule"] == "the data's own metadata.json"
    assert metrics.protocol["resolution"] == "4x3 to 32x24"


def test_the_protocol_is_declared(run):
    protocol = evaluate.evaluate(run).protocol
    assert protocol["background"] == "white"
    assert protocol["resolution"] == "32x24"
    assert protocol["split_rule"] == "the data's own transforms_test.json"


def test_each_image_has_a_row_in_metrics_csv(run):
    metrics = evaluate.evaluate(run)
    with (run.folder / "eval" / "test" / "metrics.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [each.name for each in metrics.per_image]
    for row, each in zip(rows, metrics.per_image, strict=True):
        assert row.keys() == each.to_row().keys()
        assert float(row["psnr"]) == each.psnr
        assert row["lpips"] == ""


def test_images_and_error_maps_are_written(run):
    shown = []
    evaluate.evaluate(run, progress=lambda done, total: shown.append((done, total)))
    folder = run.folder / "eval" / "test"
    names = {"000.png", "000_error.png", "001.png", "001_error.png", "002.png", "002_error.png"}
    assert {path.name for path in folder.iterdir()} == names | {"metrics.json", "metrics.csv", "report.html"}
    expected = to_uint8(render_view(Ball(), data.read_scene(run.source, "test"), 2, device=CPU).rgb)
    assert np.array_equal(np.asarray(Image.open(folder / "002.png")), expected.numpy())
    assert shown == [(1, 3), (2, 3), (3, 3)]


def test_silhouettes_show_what_is_missing_and_what_is_added():
    found, truth = torch.tensor([[True, True, False, False]]), torch.tensor([[True, False, True, False]])
    image = evaluate.compare_silhouettes(found, truth)
    assert image.tolist() == [[[255, 255, 255], [0, 0, 255], [255, 0, 0], [0, 0, 0]]]


def test_of_a_surface_that_is_cut_out_there_are_more_images(tmp_path):
    capture = made_objects.dtu(tmp_path / "capture", n=9)
    run_training(TrainingJob(NLR, Source(capture), Train(steps=1, num_validation_views=0), tmp_path / "run"))
    evaluate.evaluate(read_run(tmp_path / "run"))
    names = {path.name for path in (tmp_path / "run/eval/test").iterdir()}
    assert names >= {f"000{kind}.png" for kind in ("", "_error", "_silhouettes", "_blended", "_sources")}
    assert "slices.png" in names


def test_images_may_be_left_out_and_another_folder_chosen(run, tmp_path):
    evaluate.evaluate(run, out=tmp_path / "other", save_images=False)
    assert {path.name for path in (tmp_path / "other").iterdir()} == {"metrics.json", "metrics.csv", "report.html"}
    assert not run.folder.exists()


def test_the_report_shows_every_view_and_the_history_of_the_training(run):
    rows = [{"step": i, "seconds": 30.0 * i, "rays": 0, "psnr": 20.0 + i} for i in range(3)]
    (run.folder / "log").mkdir(parents=True)
    (run.folder / "log" / "history.json").write_text(json.dumps(rows))
    evaluate.evaluate(run)
    page = (run.folder / "eval" / "test" / "report.html").read_text()
    assert page.count("data:image") == 12
    assert "polyline" in page
    assert "http" not in page


def test_psnr_is_the_mean_over_images_of_the_rounded_ones(run, monkeypatch):
    scene = run.scenes["test"]
    monkeypatch.setattr(evaluate, "load_ground_truth", lambda run, split, rows: pictured(scene, 10))
    metrics = evaluate.evaluate(run)
    assert metrics.psnr == pytest.approx(20 * math.log10(255 / 10), abs=1e-4)
    assert metrics.psnr_masked_image is None


def test_with_silhouettes_scores_are_of_the_object_alone(run, monkeypatch):
    scene = pictured(run.scenes["test"], 10)
    assert scene.images is not None
    opaque = (torch.arange(len(scene.images.pixels)) % 32) < 8
    pixels = torch.cat([scene.images.pixels, 255 * opaque[:, None].to(torch.uint8)], -1)
    # What is transparent shows the white background: far from the view, if it counted.
    scene = replace(scene, images=replace(scene.images, pixels=pixels), has_object_mask=True)
    monkeypatch.setattr(evaluate, "load_ground_truth", lambda run, split, rows: scene)
    metrics = evaluate.evaluate(run)
    assert metrics.psnr == pytest.approx(20 * math.log10(255 / 10), abs=1e-4)
    assert metrics.psnr_masked_image == pytest.approx(metrics.psnr + 10 * math.log10(4), abs=1e-4)
    solid = torch.stack([render_view(Ball(), scene, row, device=CPU).hit_mask.flatten() for row in range(3)])
    shown = opaque.view(3, -1)
    expected = [float((a & b).sum() / (a | b).sum()) for a, b in zip(solid, shown, strict=True)]
    assert metrics.mask_iou == pytest.approx(sum(expected) / 3)
    assert "silhouette" in metrics.protocol["mask"]


def test_two_empty_silhouettes_agree():
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    assert evaluate.intersection_over_union(nothing, nothing) == 1
    assert evaluate.intersection_over_union(nothing, ~nothing) == 0


def test_with_masks_psnr_counts_the_mask_and_the_masked_image_all_pixels(run, monkeypatch):
    scene = run.scenes["test"]
    mask = (torch.arange(3 * 32 * 24) % 32) < 8
    monkeypatch.setattr(evaluate, "load_ground_truth", lambda run, split, rows: pictured(scene, 10, mask))
    metrics = evaluate.evaluate(run)
    assert metrics.psnr == pytest.approx(20 * math.log10(255 / 10), abs=1e-4)
    assert metrics.psnr_masked_image == pytest.approx(metrics.psnr + 10 * math.log10(4), abs=1e-4)
    error = np.asarray(Image.open(run.folder / "eval" / "test" / "000_error.png"))
    assert error[:, 8:].max() == 0
    assert error[:, :8].min(axis=(0, 1)).max() > 0


def test_an_image_without_a_counting_pixel_has_no_psnr(run, monkeypatch):
    scene = run.scenes["test"]
    mask = torch.arange(3 * 32 * 24) >= 32 * 24
    monkeypatch.setattr(evaluate, "load_ground_truth", lambda run, split, rows: pictured(scene, 10, mask))
    metrics = evaluate.evaluate(run)
    assert metrics.per_image[0].psnr is None
    assert metrics.psnr == pytest.approx(20 * math.log10(255 / 10), abs=1e-4)


def test_ssim_agrees_with_its_definition():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(20, 30, 3, generator=generator)
    b = (a + 0.1 * torch.randn(20, 30, 3, generator=generator)).clamp(0, 1)

    def smooth(x):
        return gaussian_filter(x, 1.5, mode="mirror", radius=5, axes=(0, 1))

    x, y = a.double().numpy(), b.double().numpy()
    mx, my = smooth(x), smooth(y)
    vx, vy, vxy = smooth(x * x) - mx**2, smooth(y * y) - my**2, smooth(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    expected = ((2 * mx * my + c1) * (2 * vxy + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()
    assert metrics.ssim(a, b) == pytest.approx(float(expected), abs=1e-5)


def test_ssim_of_an_image_smaller_than_the_window_is_absent():
    assert metrics.ssim(torch.zeros(10, 50, 3), torch.zeros(10, 50, 3)) is None


def test_lpips_is_the_mean_of_what_the_network_says(tmp_path, monkeypatch):
    seen = []

    def perceptual(a, b):
        seen.append((tuple(a.shape), float(a.max())))
        return torch.tensor(0.25)

    monkeypatch.setattr(evaluate, "load_lpips", lambda device, download: (perceptual, None))
    scene = scene_of(around(2, (40, 36)))
    monkeypatch.setattr(evaluate, "load_ground_truth", lambda run, split, rows: pictured(scene, 10))
    run = run_of(tmp_path, Ball(), {"test": scene}, data.Source(tmp_path, format="llff"))
    metrics = evaluate.evaluate(run)
    assert metrics.lpips == 0.25
    (scale,) = metrics.per_scale.values()
    assert metrics.average_error == scale.average_error > 0
    assert metrics.lpips_reason is None
    assert seen == [((1, 3, 36, 40), 1.0)] * 2


def test_lpips_of_small_images_is_absent_with_a_reason(run, monkeypatch):
    monkeypatch.setattr(evaluate, "load_lpips", lambda device, download: (pytest.fail, None))
    metrics = evaluate.evaluate(run)
    assert metrics.lpips is None
    assert metrics.lpips_reason == "all images are smaller than 32 pixels"


def test_evaluation_without_photographs_is_one_sentence(run):
    with pytest.raises(DataError, match=r"data: found none \(a portable scene\)"):
        evaluate.evaluate(replace(run, source=None))
    with pytest.raises(DataError, match=r"split: found 'val'"):
        evaluate.evaluate(run, "val")


def test_evaluation_to_a_place_that_cannot_be_written_is_one_sentence(run, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"output: found an error \(not a directory\)"):
        evaluate.evaluate(run, out=tmp_path / "file" / "eval")


def test_means_leave_out_what_is_absent():
    assert metrics.mean([1.0, None, 3.0]) == 2.0
    assert metrics.mean([None]) is None


def test_the_average_error_is_a_geometric_mean():
    assert metrics.average_error(20.0, 0.96, 0.1) == pytest.approx((0.01 * 0.2 * 0.1) ** (1 / 3))
    assert metrics.average_error(100.0, 1.0, 0.0) == 0
    for scores in ((None, 0.9, 0.1), (20.0, None, 0.1), (20.0, 0.9, None)):
        assert metrics.average_error(*scores) is None


def test_scores_do_not_depend_on_the_chunk(run):
    pieces = replace(run, method=Ball(), chunk=100)
    whole, parts = (evaluate.evaluate(each).per_image for each in (run, pieces))
    assert [image.psnr for image in whole] == [image.psnr for image in parts]
    assert pieces.method.calls == 3 * -(-32 * 24 // 100)


def test_another_size_than_trained_is_told_and_written_apart(run):
    evaluate.evaluate(run)
    half = evaluate.evaluate(replace(run, source=replace(run.source, downscale=2)))
    assert half.protocol["resolution"] == "16x12 (1/2 of the files, trained at 1/1)"
    assert 20 < half.psnr < 60
    written = {name: run.folder / "eval" / name / "metrics.json" for name in ("test", "test_downscale_2")}
    assert [json.loads(file.read_text())["psnr"] == half.psnr for file in written.values()] == [False, True]


def test_the_size_of_the_training_is_not_told_twice(run):
    source = replace(run.source, downscale=2)
    metrics = evaluate.evaluate(replace(run, config=replace(run.config, source=source), source=source))
    assert metrics.protocol["resolution"] == "16x12 (1/2 of the files)"
    assert (run.folder / "eval" / "test" / "metrics.json").is_file()
