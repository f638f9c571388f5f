"""What a run on 7-Scenes knows: pictures, depth and poses of held-out frames.

Run `python benchmarks/seven_scenes.py RUN [--focals RUN ...] [--baseline FILE]` after `lumifield eval RUN`; it writes
seven_scenes.json and seven_scenes.md. `--focals` are runs with other focal lengths, compared on validation frames, and
`--baseline` is the record of `lumifield localize baseline`. Depth is compared with the sensor's, whose points are seen
through the run's camera. Poses start 5 degrees and 10 cm off, in random directions.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from lumifield import data
from lumifield.bench import commit, machine
from lumifield.checkpoint import Run, load, write_json
from lumifield.core.files import replacing
from lumifield.core.scene import Scene
from lumifield.data.pictures import raw
from lumifield.localize.pose import localize, of_split, off_the_truth
from lumifield.methods.views import render_view, view_psnr

CPU = torch.device("cpu")
SENSOR_FOCAL, NO_DEPTH, MILLIMETRE = 585.0, (0, 65535), 1e-3
DEGREES, CENTIMETRES = 5.0, 10.0


def psnr(run: Run, split: str) -> float:
    """Mean PSNR of a split [dB]."""
    assert run.source is not None
    scene = data.read(run.source, split)
    scores = [view_psnr(render_view(run.method, scene, i, device=CPU), scene, i) for i in range(len(scene))]
    return sum(score for score in scores if score is not None) / len(scores)


def depth_errors(run: Run, scene: Scene, index: int) -> np.ndarray:
    """Differences of the depth along the optical axis at the pixels of the sensor's points [m]."""
    assert run.source is not None
    depth = raw(run.source.data / f"{scene.names[index].removesuffix('.color.jpg')}.depth.png")
    v, u = np.nonzero(~np.isin(depth, NO_DEPTH))
    z = depth[v, u] * MILLIMETRE
    height, width = depth.shape
    local = np.stack([(u + 0.5 - width / 2) / SENSOR_FOCAL * z, (v + 0.5 - height / 2) / SENSOR_FOCAL * z, z], -1)
    camera = scene.cameras[[index]]
    focal, centre, size = (values[0].numpy() for values in (camera.focal, camera.centre, camera.size))
    xy = np.floor(local[:, :2] / z[:, None] * focal + centre).astype(int)
    within = ((xy >= 0) & (xy < size)).all(-1)
    view = render_view(run.method, scene, index, device=CPU)
    rays = scene.rays(index)
    along = (rays.directions @ camera.forward[0]).view(view.depth.shape) * view.depth
    x, y = xy[within].T
    return np.abs(along.numpy()[y, x] - z[within])


def poses(run: Run, seed: int, out: Path) -> dict[str, Any]:
    """How well poses of the test frames are refined."""
    asked = of_split(run, "test")
    starts = [off_the_truth(run, each, DEGREES, CENTIMETRES, seed=seed) for each in asked]
    return {"seed": seed} | localize(run, asked, starts, out)


def markdown(result: dict[str, Any]) -> str:
    """The figures in one table."""
    pose = result["pose"]
    rows = [
        ("PSNR of held-out frames", f"{result['psnr']:.2f} dB"),
        ("median depth error, all pixels with depth", f"{100 * result['median_depth_error']:.1f} cm"),
        (
            f"pose from {DEGREES:g} degrees, {CENTIMETRES:g} cm off, median",
            f"{pose['median_error'][1]:.2f} degrees, {pose['median_error'][0]:.1f} cm",
        ),
        *((f"poses {name}", f"{share:.0%}") for name, share in pose["success"].items()),
        ("seconds a pose", f"{pose['seconds'] / pose['photographs']:.1f}"),
        *(
            (f"PSNR of validation frames, focal length {each['focal']:g}", f"{each['psnr']:.2f} dB")
            for each in result["focals"]
        ),
    ]
    if result["baseline"] is not None:
        for name in ("without", "with"):
            far, wide = result["baseline"][name]
            rows.append((f"pose regressor {name} synthetic views, median", f"{wide:.2f} degrees, {far:.1f} cm"))
        rows.append(("which falls by", " and ".join(f"{share:.0%}" for share in result["baseline"]["drop"][::-1])))
    lines = [
        f"Machine: {result['machine']}. Commit: {result['commit']}. {result['photographs']} held-out frames with "
        f"depth, trained {result['train_seconds']:.0f} s, pictures at 1/{result['downscale']}.",
        "",
        "| what | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in rows),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run on a folder of 7-Scenes whose test frames have depth")
    parser.add_argument("--focals", type=Path, nargs="*", default=[], help="runs with other focal lengths")
    parser.add_argument("--baseline", type=Path, help="baseline.json of `lumifield localize baseline`")
    parser.add_argument("--seed", type=int, default=0, help="seed of the directions that poses start in")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results"), help="folder of the results")
    options = parser.parse_args()
    run = load(options.run)
    assert run.source is not None
    test = data.read(run.source, "test")
    off = [depth_errors(run, test, index) for index in range(len(test))]
    result = {
        "machine": machine(CPU),
        "commit": commit(),
        "photographs": len(test),
        "train_seconds": run.train["seconds"],
        "downscale": run.source.downscale,
        "psnr": psnr(run, "test"),
        "median_depth_error": float(np.median(np.concatenate(off))),
        "median_depth_error_of_frames": median(float(np.median(each)) for each in off),
        "pose": poses(run, options.seed, options.run / "localize" / "pose"),
        "focals": [
            {"focal": other.source.focal, "seconds": other.train["seconds"], "psnr": psnr(other, "val")}
            for other in map(load, options.focals)
            if other.source is not None
        ],
        "baseline": None if options.baseline is None else json.loads(options.baseline.read_text(encoding="utf-8")),
    }
    write_json(options.out / "seven_scenes.json", result)
    with replacing(options.out / "seven_scenes.md") as temporary:
        temporary.write_text(markdown(result), encoding="utf-8")
    print(markdown(result))


if __name__ == "__main__":
    main()
