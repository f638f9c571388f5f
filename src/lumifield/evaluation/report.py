"""report.html: one self-contained page with scores, images, error maps and plots."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from lumifield.evaluation.metrics import InitializationScores, Metrics, ViewScore
from lumifield.runs.checkpoint import Validation
from lumifield.runtime.files import replacing

THUMBNAIL = 288
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, NAMES = 960, 240, 44, 26, 10, 70
LINES = ("#2f6fdb", "#d9622b", "#3a9d5d", "#8a63c9")

STYLE = """
:root { --page: #fbfaf8; --card: #fff; --ink: #1d1f23; --soft: #6a6f78; --line: #e4e2dd;
  --mark: #2f6fdb; --low: #d9622b; }
@media (prefers-color-scheme: dark) {
  :root { --page: #14161a; --card: #1c1f25; --ink: #e8e9ec; --soft: #969ca8; --line: #2e323a;
    --mark: #7aa7ff; --low: #ff9a62; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 40px 24px 80px; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 30px; line-height: 1.2; letter-spacing: -.02em; margin: 0 0 4px; }
h2 { font-size: 19px; letter-spacing: -.01em; margin: 44px 0 12px; }
p { color: var(--soft); margin: 0 0 16px; max-width: 76ch; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 24px; }
.tile, .plot, dl, .view { background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 14px 16px; }
.tile b { display: block; font-size: 25px; font-weight: 600; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.tile span, figcaption, .scores { color: var(--soft); font-size: 13px; }
.plot { padding: 12px; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--soft); font-size: 11px; font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--line); } svg .mean { stroke: var(--soft); stroke-dasharray: 4 4; }
svg .above { fill: var(--mark); } svg .below { fill: var(--low); }
svg .curve { fill: none; stroke: var(--mark); stroke-width: 2; stroke-linejoin: round; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 6px 24px; padding: 16px; margin: 0; font-size: 14px; }
dt { color: var(--soft); } dd { margin: 0; }
.view { padding: 12px 16px 14px; margin-bottom: 12px; }
.view header { display: flex; justify-content: space-between; gap: 16px; margin-bottom: 8px; flex-wrap: wrap; }
.view .images { display: grid; grid-template-columns: repeat(4, 1fr); gap: 8px; }
@media (max-width: 640px) { .view .images { grid-template-columns: repeat(2, 1fr); } }
figure { margin: 0; }
img { display: block; width: 100%; height: auto; border-radius: 5px; outline: 1px solid var(--line); }
.scores { font-variant-numeric: tabular-nums; }
"""

TERMS = {
    "background": "Background",
    "resolution": "Resolution",
    "pixel_centers": "Pixel centers",
    "split_rule": "Split",
    "clipping": "Clipping",
    "rounding_8bit": "8-bit rounding",
    "psnr": "PSNR",
    "mask": "Masks",
    "columns": "Columns",
    "ssim": "SSIM",
    "lpips_net": "LPIPS network",
    "embedding_fit": "Embedding fit",
    "adaptation": "Adaptation",
    "initializations": "Matched initializations",
    "color_pass": "Color pass",
}


@dataclass(frozen=True)
class ReportView:
    """One view in the report: scores, width and height, and images as data URLs by caption."""

    score: ViewScore
    size: tuple[int, int]
    images: dict[str, str]

    @staticmethod
    def of(score: ViewScore, size: tuple[int, int], images: dict[str, UInt8[Tensor, "h w 3"]]) -> ReportView:
        """View with 8-bit images shrunk to thumbnails."""
        return ReportView(score, size, {caption: encode_thumbnail(pixels) for caption, pixels in images.items()})

    @staticmethod
    def from_json(plain: Mapping[str, Any]) -> ReportView:
        """The inverse of `asdict`, also after a round trip through JSON."""
        return ReportView(ViewScore(**plain["score"]), tuple(plain["size"]), plain["images"])


def write_report(metrics: Metrics, views: Sequence[ReportView], history: Sequence[Validation]) -> None:
    """Writes the page to the folder of the metrics; raises `DataError` if that is not possible."""
    with replacing(metrics.report) as temporary:
        temporary.write_text(report_page(metrics, views, history), encoding="utf-8")


def report_page(metrics: Metrics, views: Sequence[ReportView], history: Sequence[Validation]) -> str:
    """The page, without external references."""
    name = Path(metrics.data).name if metrics.data else "a scene"
    title = f"{metrics.method} on {name}"
    points = [(row.seconds / 60, row.psnr) for row in history]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{metrics.n_images} {html.escape(metrics.split)} views that a run of {metrics.n_train_images} "
        f"training images is scored on. {html.escape(str(metrics.data or ''))}</p>",
        tiles(metrics),
        "<h2>PSNR per view</h2>",
        f"<p>Relative to the mean of all views, {format_number(metrics.psnr, 2)} dB.</p>",
        f'<div class="plot">{bars([(view.score.name, view.score.psnr) for view in views], metrics.psnr)}</div>',
        *(training_curve(points) if len(points) > 1 else ()),
        *(initialization_curves(metrics.initializations) if metrics.initializations else ()),
        "<h2>Protocol</h2>",
        protocol_list(metrics),
        "<h2>Views, worst first</h2>",
        "<p>Ground truth, rendering, absolute error on one scale for all views, and depth (near is blue, far is red, "
        "scaled for each view).</p>",
        *(view_article(view) for view in sorted(views, key=lambda view: _sort_key(view.score.psnr))),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def tiles(metrics: Metrics) -> str:
    """Headline numbers."""
    shown = [
        (f"{format_number(metrics.psnr, 2)} dB", "PSNR"),
        (format_number(metrics.ssim, 4), "SSIM"),
        (format_number(metrics.lpips, 4), "LPIPS"),
        (format_duration(metrics.train_seconds), "training"),
        (f"{format_magnitude(metrics.train_rays_per_second)}/s", "rays in training"),
        (f"{format_magnitude(metrics.render_rays_per_second)}/s", "rays in rendering"),
    ]
    cells = "".join(f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in shown)
    return f'<div class="tiles">{cells}</div>'


def training_curve(points: Sequence[tuple[float, float]]) -> tuple[str, str, str]:
    """Plot of validation PSNR over training time, with heading."""
    return (
        "<h2>Training</h2>",
        "<p>PSNR of validation views [dB] over minutes of training.</p>",
        f'<div class="plot">{curve(points)}</div>',
    )


def initialization_curves(rows: dict[str, InitializationScores]) -> tuple[str, str, str]:
    """Plot of adaptation curves of each initialization, with heading."""
    lines = {name: row.curve for name, row in rows.items()}
    scores = ", ".join(f"{name} {format_number(row.psnr, 2)} dB" for name, row in rows.items())
    return (
        "<h2>Initializations</h2>",
        f"<p>Mean PSNR of held-out views [dB] over adaptation steps, for each initialization. Final: {scores}.</p>",
        f'<div class="plot">{steps_curves(lines)}</div>',
    )


def protocol_list(metrics: Metrics) -> str:
    """Protocol as a definition list."""
    rows = [(TERMS[key], value) for key, value in metrics.protocol.items()]
    if metrics.lpips is None:
        rows.append(("No LPIPS", metrics.lpips_reason or "unknown"))
    if metrics.mask_iou is not None:
        rows.append(("Silhouettes", f"intersection over union {format_number(metrics.mask_iou, 4)}"))
    if metrics.chamfer is not None:
        rows.append(
            (
                "Surface",
                f"chamfer distance {metrics.chamfer:.2%} of the diagonal of the ground truth mesh, visible parts",
            )
        )
    if metrics.psnr_masked_image is not None:
        rows.append(("PSNR of masked images", f"{format_number(metrics.psnr_masked_image, 2)} dB, black outside masks"))
    return "<dl>" + "".join(f"<dt>{term}</dt><dd>{html.escape(str(value))}</dd>" for term, value in rows) + "</dl>"


def view_article(view: ReportView) -> str:
    """One view: scores and images side by side."""
    score, name = view.score, html.escape(view.score.name)
    scores = f"{format_number(score.psnr, 2)} dB &ensp; SSIM {format_number(score.ssim, 4)}"
    images = "".join(
        f'<figure><img loading="lazy" alt="{caption} of {name}" src="{address}">'
        f"<figcaption>{caption}</figcaption></figure>"
        for caption, address in view.images.items()
    )
    return (
        f'<article class="view"><header><b>{name}</b><span class="scores">{scores}</span></header>'
        f'<div class="images">{images}</div></article>'
    )


def bars(values: Sequence[tuple[str, float | None]], mean: float | None) -> str:
    """Bar chart of one value per view relative to the mean; empty if there are no values."""
    there = [value for _, value in values if value is not None]
    scale = PlotAxis.around(there or [0.0])
    slot = (WIDTH - LEFT) / max(len(values), 1)
    middle = scale.y(mean if mean is not None else scale.low)
    drawn = []
    for index, (name, value) in enumerate(values):
        if value is None:
            continue
        end = scale.y(value)
        kind = "above" if end <= middle else "below"
        drawn.append(
            f'<rect class="{kind}" x="{LEFT + (index + 0.1) * slot:.1f}" y="{min(end, middle):.1f}" '
            f'width="{min(slot * 0.8, 28):.2f}" height="{max(abs(end - middle), 1):.1f}">'
            f"<title>{html.escape(name)}: {value:.2f} dB</title></rect>"
        )
    line = f'<line class="mean" x1="{LEFT}" x2="{WIDTH}" y1="{middle:.1f}" y2="{middle:.1f}"/>'
    return _svg(scale.grid() + "".join(drawn) + line)


def curve(points: Sequence[tuple[float, float]]) -> str:
    """Line plot of points ordered by x."""
    scale = PlotAxis.around([y for _, y in points])
    last = max(points[-1][0], 1e-9)
    path = " ".join(f"{LEFT + x / last * (WIDTH - LEFT):.1f},{scale.y(y):.1f}" for x, y in points)
    labels = "".join(
        f'<text x="{LEFT + x / last * (WIDTH - LEFT):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{x:g}</text>'
        for x in ticks(0.0, last)
        if x < last * 0.985
    )
    return _svg(f'{scale.grid()}{labels}<polyline class="curve" points="{path}"/>')


def steps_curves(lines: dict[str, dict[int, float]]) -> str:
    """Line plot of named curves over steps on a logarithmic axis that begins with 0."""
    scale = PlotAxis.around([value for line in lines.values() for value in line.values()])
    last = math.log1p(max(step for line in lines.values() for step in line))

    def x(step: int) -> float:
        return LEFT + math.log1p(step) / max(last, 1e-9) * (WIDTH - LEFT - NAMES)

    drawn = []
    for (name, line), color in zip(lines.items(), LINES, strict=False):
        path = " ".join(f"{x(step):.1f},{scale.y(value):.1f}" for step, value in sorted(line.items()))
        end = scale.y(line[max(line)])
        drawn.append(f'<polyline class="curve" style="stroke: {color}" points="{path}"/>')
        drawn.append(f'<text x="{WIDTH - NAMES + 6}" y="{end + 4:.1f}" style="fill: {color}">{name}</text>')
    labels = "".join(
        f'<text x="{x(step):.1f}" y="{HEIGHT - 6}" text-anchor="middle">{step}</text>'
        for step in sorted({step for line in lines.values() for step in line})
    )
    return _svg(f"{scale.grid()}{labels}{''.join(drawn)}")


def write_curves(path: Path, lines: dict[str, dict[int, float]]) -> None:
    """Writes `steps_curves` as an SVG file; raises `DataError` if `path` is not writable."""
    plot = steps_curves(lines).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    style = "text { font: 11px sans-serif; } .grid { stroke: #e4e2dd; } .curve { fill: none; stroke-width: 2; }"
    with replacing(path) as temporary:
        temporary.write_text(plot.replace(">", f"><style>{style}</style>", 1), encoding="utf-8")


@dataclass(frozen=True)
class PlotAxis:
    """Vertical axis of a plot from `low` to `high`."""

    low: float
    high: float

    @staticmethod
    def around(values: Sequence[float]) -> PlotAxis:
        """Axis that fits all values with a margin."""
        margin = max((max(values) - min(values)) * 0.08, 0.05)
        return PlotAxis(min(values) - margin, max(values) + margin)

    def y(self, value: float) -> float:
        """Position of a value from the top of the plot."""
        return TOP + (self.high - value) / (self.high - self.low) * (HEIGHT - BOTTOM - TOP)

    def grid(self) -> str:
        """Grid lines with labels at round values."""
        return "".join(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH}" y1="{self.y(v):.1f}" y2="{self.y(v):.1f}"/>'
            f'<text x="{LEFT - 8}" y="{self.y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
            for v in ticks(self.low, self.high)
        )


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values between `low` and `high`: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def encode_thumbnail(pixels: UInt8[Tensor, "h w 3"]) -> str:
    """An 8-bit image, at most `THUMBNAIL` pixels wide and high, as a data URL."""
    image = Image.fromarray(pixels.numpy())
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="jpeg", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def format_number(value: float | None, digits: int) -> str:
    """A number with fixed decimals, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}"


def format_duration(seconds: float) -> str:
    """A duration in readable units."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d}"


def format_magnitude(value: float | None) -> str:
    """A large number with three significant digits and a unit prefix."""
    if value is None:
        return "–"
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _svg(content: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{content}</svg>'


def _sort_key(psnr: float | None) -> float:
    return math.inf if psnr is None else psnr
