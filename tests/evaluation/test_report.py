import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lumifield.errors import DataError
from lumifield.evaluation import report
from lumifield.evaluation.metrics import Metrics, ViewScore
from lumifield.runs.checkpoint import Validation

IMAGES = {
    caption: torch.zeros(4, 6, 3, dtype=torch.uint8) for caption in ("ground truth", "rendering", "error", "depth")
}
METRICS = Metrics(
    psnr=28.5,
    psnr_masked_image=None,
    ssim=0.9,
    lpips=None,
    mask_iou=None,
    average_error=None,
    lpips_reason="torchvision is not installed",
    n_images=2,
    n_train_images=7,
    train_seconds=300.0,
    train_steps=100,
    train_rays_per_second=5.1e5,
    render_seconds=0.0,
    render_rays_per_second=None,
    method="instant",
    data="/somewhere/<lego>",
    split="test",
    per_scale={},
    per_image=(),
    protocol={"background": "white", "psnr": "mean of images"},
    folder=Path("eval"),
)


def view_of(name, psnr):
    score = ViewScore(name=name, seconds=1.0, psnr=psnr, psnr_masked_image=None, ssim=0.9, lpips=None, mask_iou=None)
    return report.ReportView.of(score, (6, 4), IMAGES)


def test_the_page_holds_every_image_and_refers_to_nothing_outside():
    page = report.report_page(METRICS, [view_of("a", 27.0), view_of("b", 30.0)], [])
    assert page.count('src="data:image/jpeg;base64,') == 8
    assert "http" not in page
    assert "url(" not in page
    assert all(f'alt="{caption} of {name}"' in page for caption in IMAGES for name in "ab")


def test_the_page_says_the_numbers_the_protocol_and_what_is_missing():
    page = report.report_page(METRICS, [view_of("a", 27.0)], [])
    for text in ("28.50 dB", "0.9000", "5 min", "510 k/s", "Background", "mean of images", "torchvision is not"):
        assert text in page
    assert "&lt;lego&gt;" in page
    assert "<lego>" not in page


def test_views_are_sorted_the_worst_first_and_unscored_ones_last():
    page = report.report_page(METRICS, [view_of("none", None), view_of("good", 31.0), view_of("bad", 20.0)], [])
    assert re.findall(r"<header><b>(\w+)</b>", page) == ["bad", "good", "none"]


def test_the_training_curve_is_there_when_there_is_a_history():
    rows = [Validation(step, 60.0 * step, 0, 20.0 + step) for step in range(4)]
    assert "polyline" not in report.report_page(METRICS, [view_of("a", 27.0)], rows[:1])
    page = report.report_page(METRICS, [view_of("a", 27.0)], rows)
    points = re.search(r'polyline class="curve" points="([^"]*)"', page)
    assert points is not None
    assert len(points[1].split()) == 4


def test_there_is_a_bar_for_each_scored_view_on_its_side_of_the_mean():
    svg = report.bars([("low", 20.0), ("none", None), ("high", 30.0)], 25.0)
    assert re.findall(r'rect class="(\w+)"', svg) == ["below", "above"]
    assert "<title>low: 20.00 dB</title>" in svg
    assert "<rect" not in report.bars([("none", None)], None)


def test_all_values_of_a_plot_lie_inside_it():
    scale = report.PlotAxis.around([3.0, 3.0])
    assert report.TOP < scale.y(3.0) < report.HEIGHT - report.BOTTOM
    assert scale.y(scale.high) == pytest.approx(report.TOP)
    assert scale.y(scale.low) == pytest.approx(report.HEIGHT - report.BOTTOM)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, [0, 2, 4, 6, 8, 10]),
        (27.3, 31.1, [28, 29, 30, 31]),
        (0.0, 0.5, [0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        (-30.0, 20.0, [-30, -20, -10, 0, 10, 20]),
    ],
)
def test_ticks_are_round(low, high, expected):
    assert report.ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("seconds", "words"), [(59.6, "60 s"), (300.0, "5 min"), (3600.0, "60 min"), (7500.0, "2 h 05")]
)
def test_durations(seconds, words):
    assert report.format_duration(seconds) == words


@pytest.mark.parametrize(("value", "words"), [(None, "–"), (12.0, "12"), (4321.0, "4.32 k"), (2.5e6, "2.5 M")])
def test_magnitudes(value, words):
    assert report.format_magnitude(value) == words


def test_thumbnails_keep_their_shape_and_are_small():
    import base64
    import io

    from PIL import Image

    address = report.encode_thumbnail(torch.full((600, 1200, 3), 200, dtype=torch.uint8))
    image = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
    assert image.size == (report.THUMBNAIL, report.THUMBNAIL // 2)
    assert image.getpixel((5, 5)) == (200, 200, 200)


def test_a_page_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"output: found an error \(file exists\)"):
        report.write_report(replace(METRICS, folder=tmp_path / "file"), [], [])
