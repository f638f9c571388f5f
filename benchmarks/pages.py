"""How close the page of a run comes to its own rendering, its size and its pace, in headless Chromium.

Run `PYTHONPATH=tests python benchmarks/pages.py RUN [RUN ...]` with trained runs; it exports each with the settings as
they are, writes pages.json and .md, and each view beside its rendering to --images where given.
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

from browser import Page, opened
from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data.scene import Scene
from lumifield.export import WebExport
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import LoadedRun, load_run, write_json
from lumifield.runtime.files import replacing
from lumifield.runtime.image_io import to_uint8
from lumifield.runtime.image_metrics import psnr

VIEWS = 8


def link(scene: Scene, index: int) -> str:
    """The part of the page's address that asks for a camera of a scene."""
    c2w = scene.frame.poses_to_world(scene.cameras.c2w)[index].flatten().tolist()
    lens = {"c2w": c2w, "focal": scene.cameras.focal[index].tolist(), "size": scene.size(index)}
    return "#" + "&".join(f"{key}={','.join(map(str, value))}" for key, value in lens.items())


def seen(page: Page, scene: Scene, index: int) -> tuple[np.ndarray, float]:
    """What the page shows from a camera, and the milliseconds that it took to draw."""
    width, height = scene.size(index)
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", **metrics)
    page.evaluate(f"history.replaceState(null, '', '{link(scene, index)}')")
    page.evaluate("delete document.body.dataset.frame; window.dispatchEvent(new Event('hashchange'))")
    page.until("document.body.dataset.frame")
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))
    return pixels, float(page.evaluate("document.body.dataset.frame"))


def compared(run: LoadedRun, file: Path, profile: Path, images: Path | None) -> dict[str, Any]:
    """Differences between the page and the rendering over views of the test split."""
    scene = run.scenes["test"]
    scores, paces = [], []
    with opened("about:blank", profile) as page:
        page.call("Page.enable")
        page.call("Network.enable")
        page.call("Page.navigate", url=file.as_uri())
        page.until("document.body && document.body.dataset.state")
        for index in range(0, len(scene), max(1, len(scene) // VIEWS)):
            shown, pace = seen(page, scene, index)
            rendered = to_uint8(render_view(run.method, scene, index, device=run.device).rgb).numpy()
            scores.append(psnr(float(np.square((shown.astype(float) - rendered) / 255).mean())))
            paces.append(pace)
            if images is not None:
                images.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.hstack([rendered, shown])).save(images / f"{run.folder.name}_{index}.png")
        asked = [event for event in page.events if event["method"] == "Network.requestWillBeSent"]
    outside = [event["params"]["request"]["url"] for event in asked]
    return {
        "psnr": float(np.mean(scores)),
        "lowest_psnr": min(scores),
        "frame_ms": float(np.median(paces)),
        "image": "x".join(map(str, scene.size(0))),
        "requests": len([address for address in outside if not address.startswith(("file:", "data:", "about:"))]),
    }


def measured(folder: Path, images: Path | None) -> dict[str, Any]:
    """The row of one run."""
    run = load_run(folder)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        file = Path(scratch) / "scene.html"
        begun = time.perf_counter()
        WebExport().write(run, file)
        row = {"run": folder.name, "seconds": time.perf_counter() - begun, "megabytes": file.stat().st_size / 1e6}
        return row | compared(run, file, Path(scratch) / "profile", images)


def table(rows: list[dict[str, Any]], about: str) -> str:
    """The rows as Markdown."""
    head = "| run | page [MB] | baking [s] | PSNR against `render` [dB] | lowest | frame [ms] | image | requests |"
    lines = [
        f"| {r['run']} | {r['megabytes']:.1f} | {r['seconds']:.0f} | {r['psnr']:.2f} | {r['lowest_psnr']:.2f} "
        f"| {r['frame_ms']:.0f} | {r['image']} | {r['requests']} |"
        for r in rows
    ]
    return "\n".join([about, "", head, "| --- |" + " ---: |" * 7, *lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    rows = [measured(folder, options.images) for folder in options.runs]
    where = f"{describe_machine(torch.device('cpu'))}, {torch.get_num_threads()} threads, commit {current_commit()}"
    write_json(options.out / "pages.json", {"machine": where, "rows": rows})
    with replacing(options.out / "pages.md") as temporary:
        temporary.write_text(table(rows, f"{VIEWS} test cameras; {where}."), encoding="utf-8")
    print(table(rows, ""))


if __name__ == "__main__":
    main()
