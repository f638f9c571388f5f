"""How close a mesh of the still life comes to its exact surface, and what a textured mesh of a scene looks like.

Run `python benchmarks/meshes.py --still-life RUN --textured RUN` with trained runs; it writes meshes.json and .md.
Distances are shares of the diagonal of the true mesh. Images are drawn by rasterizer.py from the written files alone.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from rasterizer import image, project, rasterize
from scipy.spatial import KDTree

from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data import read_scene
from lumifield.data.scene import Scene
from lumifield.export import MeshExport
from lumifield.runs.run_folder import LoadedRun, write_json
from lumifield.runs.run_folder import load_run as load_run
from lumifield.runtime.files import replacing

SAMPLES, NUM_REFERENCE_POINTS, CLOSE, VIEWS = 100_000, 1_000_000, 0.005, 8


def lens(scene: Scene, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pose, focal lengths and center of a camera whose scene frame is the world."""
    cameras = scene.cameras
    return tuple(part[index].double().numpy() for part in (cameras.c2w, cameras.focal, cameras.center))


def visible_part(mesh: trimesh.Trimesh, scene: Scene) -> trimesh.Trimesh:
    """The faces that the center of some pixel of an image sees."""
    faces, seen = np.asarray(mesh.faces), np.zeros(len(mesh.faces), bool)
    for index in range(len(scene)):
        c2w, focal, center = lens(scene, index)
        width, height = scene.size(index)
        drawn = rasterize(*project(np.asarray(mesh.vertices), c2w, focal, center), faces, (2 * width, 2 * height))
        seen[drawn.face[drawn.face >= 0]] = True
    return trimesh.Trimesh(mesh.vertices, faces[seen], process=False)


def apart(one: trimesh.Trimesh, other: trimesh.Trimesh) -> np.ndarray:
    """Distances of points on one mesh from another, which ten times as many points stand for."""
    points, _ = trimesh.sample.sample_surface(one, SAMPLES, seed=0)
    near, _ = trimesh.sample.sample_surface(other, NUM_REFERENCE_POINTS, seed=1)
    return KDTree(near).query(points)[0]


def distances(mesh: trimesh.Trimesh, truth: trimesh.Trimesh) -> dict[str, float]:
    """Mean distances both ways of points spread evenly over the surfaces, and the F-score of the close ones."""
    diagonal = float(np.linalg.norm(np.ptp(truth.vertices, axis=0)))
    there, back = apart(mesh, truth) / diagonal, apart(truth, mesh) / diagonal
    precision, recall = (there < CLOSE).mean(), (back < CLOSE).mean()
    return {
        "to_truth_percent": 100 * there.mean(),
        "from_truth_percent": 100 * back.mean(),
        "f_score": 2 * precision * recall / (precision + recall),
    }


def gray_levels(mesh: trimesh.Trimesh, scene: Scene, depths: list[np.ndarray]) -> dict[str, float]:
    """Differences of the nearest vertex's color from test images where they see the true surface."""
    tree, found = KDTree(mesh.vertices), []
    for index, depth in enumerate(depths):
        rays = scene.rays(index)
        rgba = scene.images.image(index, scene.size(index)).reshape(-1, 4).numpy().astype(float)
        met = np.isfinite(depth.reshape(-1)) & (rgba[:, 3] == 255)
        reach = np.where(met, depth.reshape(-1), 0)[:, None]
        points = (rays.origins.numpy() + reach * rays.directions.numpy())[met]
        colors = np.asarray(mesh.visual.vertex_colors)[tree.query(points)[1], :3]
        found.append(np.abs(colors - rgba[met, :3]).mean(1))
    gaps = np.concatenate(found)
    return {"gray_levels_mean": gaps.mean(), "gray_levels_median": np.median(gaps)}


def still_life(run: LoadedRun, folder: Path) -> dict[str, Any]:
    """The still life's mesh against the truth beside its images."""
    data = run.source.data
    start = time.perf_counter()
    MeshExport(keep_unseen=False).write(run, folder / "seen.ply")
    seconds = time.perf_counter() - start
    MeshExport().write(run, folder / "whole.ply")
    mesh, whole = load_run(folder / "seen.ply"), load_run(folder / "whole.ply")
    truth = trimesh.load(data / "ground_truth" / "mesh.ply", process=False)
    test = read_scene(run.source, "test", at_most=VIEWS)
    depths = [np.load(data / "ground_truth" / f"{name.removeprefix('./')}_depth.npy") for name in test.names]
    result = distances(mesh, visible_part(truth, run.scenes["train"])) | gray_levels(mesh, test, depths)
    return result | {"watertight": bool(whole.is_watertight), "faces": len(mesh.faces), "seconds": seconds}


def textured(run: LoadedRun, folder: Path, faces: int, texture: int) -> dict[str, Any]:
    """PSNR and overlap of silhouettes of a textured GLB in test views."""
    start = time.perf_counter()
    MeshExport(keep_unseen=False, num_faces=faces, texture_size=texture).write(run, folder / "scene.glb")
    seconds, mesh = time.perf_counter() - start, load_run(folder / "scene.glb")
    test = read_scene(run.source, "test", at_most=VIEWS)
    psnrs, overlaps = [], []
    for index in range(len(test)):
        rgba = image(mesh, *lens(test, index), test.size(index))
        shown = np.round(255 * (rgba[..., :3] + 1 - rgba[..., 3:])) / 255
        alpha = test.images.image(index, test.size(index))[..., 3].numpy() > 127
        psnrs.append(-10 * np.log10(((shown - test.ground_truth(index).numpy()) ** 2).mean()))
        overlaps.append(((rgba[..., 3] > 0.5) & alpha).sum() / ((rgba[..., 3] > 0.5) | alpha).sum())
    megabytes = (folder / "scene.glb").stat().st_size / 1e6
    return {"psnr": np.mean(psnrs), "overlap": np.mean(overlaps), "megabytes": megabytes, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--still-life", type=Path, required=True)
    parser.add_argument("--textured", type=Path, required=True)
    parser.add_argument("--faces", type=int, default=60_000)
    parser.add_argument("--texture", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "still life": still_life(load_run(given.still_life), Path(folder)),
            "textured": textured(load_run(given.textured), Path(folder), given.faces, given.texture),
        }
    plain = {part: {key: round(float(value), 4) for key, value in row.items()} for part, row in parts.items()}
    write_json(
        given.out / "meshes.json",
        {"machine": describe_machine(torch.device("cpu")), "commit": current_commit()} | plain,
    )
    lines = ["| measured | value |", "| --- | --- |"]
    for part, row in plain.items():
        lines += [f"| {part}: {key.replace('_', ' ')} | {value:g} |" for key, value in row.items()]
    with replacing(given.out / "meshes.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
