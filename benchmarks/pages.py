"""PSNR of exported web pages against the renderings of their runs, page size and frame time, in headless Chromium.

Run `PYTHONPATH=tests python benchmarks/pages.py RUN [RUN ...]` with trained runs; it exports each with default
settings, writes pages.json and .md, and, with --images, each view of the page next to its rendering.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from browser import Page, open_page
from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data.scene import Scene
from lumifield.export import WebExport
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import LoadedRun, read_run
from lumifield.runtime.files import replacing, write_json
from lumifield.runtime.image_io import to_uint8
from lumifield.runtime.image_metrics import psnr

NUM_VIEWS = 8


def camera_fragment(scene: Scene, index: int) -> str:
    """The URL fragment that selects a camera of a scene."""
    c2w = scene.frame.poses_to_world(scene.cameras.c2w)[index].flatten().tolist()
    camera = {"c2w": c2w, "focal": scene.cameras.focal[index].tolist(), "size": scene.size(index)}
    return "#" + "&".join(f"{key}={','.join(map(str, value))}" for key, value in camera.items())


def capture_view(page: Page, scene: Scene, index: int) -> tuple[np.ndarray, float]:
    """The image of the page from a camera, and the frame time [ms]."""
    width, height = scene.size(index)
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", **metrics)
    page.evaluate(f"history.replaceState(null, '', '{camera_fragment(scene, index)}')")
    page.evaluate("delete document.body.dataset.frame; window.dispatchEvent(new Event('hashchange'))")
    page.wait_until("document.body.dataset.frame")
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    return pixels, float(page.evaluate("document.body.dataset.frame"))


def compare_with_rendering(run: LoadedRun, file: Path, profile: Path, images: Path | None) -> dict[str, Any]:
    """PSNR of the page against the renderings, frame time, and number of network requests, over test views."""
    scene = run.scenes["test"]
    scores, frame_times = [], []
    with open_page("about:blank", profile) as page:
        page.call("Page.enable")
        page.call("Network.enable")
        page.call("Page.navigate", url=file.as_uri())
        page.wait_until("document.body && document.body.dataset.state")
        for index in range(0, len(scene), max(1, len(scene) // NUM_VIEWS)):
            page_pixels, frame_time = capture_view(page, scene, index)
            rendered = to_uint8(render_view(run.method, scene, index, device=run.device).rgb).numpy()
            scores.append(psnr(float(np.square((page_pixels.astype(float) - rendered) / 255).mean())))
            frame_times.append(frame_time)
            if images is not None:
                images.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.hstack([rendered, page_pixels])).save(images / f"{run.folder.name}_{index}.png")
        requests = [event for event in page.events if event["method"] == "Network.requestWillBeSent"]
    urls = [event["params"]["request"]["url"] for event in requests]
    return {
        "psnr": float(np.mean(scores)),
        "lowest_psnr": min(scores),
        "frame_ms": float(np.median(frame_times)),
        "image": "x".join(map(str, scene.size(0))),
        "requests": sum(not url.startswith(("file:", "data:", "about:")) for url in urls),
    }


def measure_page(folder: Path, images: Path | None) -> dict[str, Any]:
    """Exports and measures the page of one run."""
    run = read_run(folder)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        file = Path(scratch) / "scene.html"
        start = time.perf_counter()
        WebExport().write(run, file)
        row = {"run": folder.name, "seconds": time.perf_counter() - start, "megabytes": file.stat().st_size / 1e6}
        return row | compare_with_rendering(run, file, Path(scratch) / "profile", images)


def format_table(rows: list[dict[str, Any]], caption: str) -> str:
    """The results as a Markdown table."""
    head = "| run | page [MB] | baking [s] | PSNR against `render` [dB] | lowest | frame [ms] | image | requests |"
    lines = [
        f"| {r['run']} | {r['megabytes']:.1f} | {r['seconds']:.0f} | {r['psnr']:.2f} | {r['lowest_psnr']:.2f} "
        f"| {r['frame_ms']:.0f} | {r['image']} | {r['requests']} |"
        for r in rows
    ]
    return "\n".join([caption, "", head, "| --- |" + " ---: |" * 7, *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="trained runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    parser.add_argument("--images", type=Path, help="folder for views of the page next to renderings")
    options = parser.parse_args()
    rows = [measure_page(folder, options.images) for folder in options.runs]
    machine = f"{describe_machine(torch.device('cpu'))}, {torch.get_num_threads()} threads, commit {current_commit()}"
    write_json(options.out / "pages.json", {"machine": machine, "rows": rows})
    with replacing(options.out / "pages.md") as temporary:
        temporary.write_text(format_table(rows, f"{NUM_VIEWS} test cameras; {machine}."), encoding="utf-8")
    print(format_table(rows, ""))


if __name__ == "__main__":
    main()
