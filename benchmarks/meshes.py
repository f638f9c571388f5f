"""Distance of a mesh of the still life from its exact surface, and PSNR of a textured mesh in test views.

Run `python benchmarks/meshes.py --still-life RUN --textured RUN` with trained runs; it writes meshes.json and .md.
Distances are relative to the diagonal of the ground truth mesh. rasterizer.py renders the mesh files.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterizer
import torch
import trimesh
from scipy.spatial import KDTree

from lumifield.bench.machine import current_commit, describe_machine
from lumifield.data import read_scene
from lumifield.data.scene import Scene
from lumifield.export import MeshExport
from lumifield.runs.run_folder import LoadedRun, read_run
from lumifield.runtime.files import replacing, write_json

NUM_QUERY_POINTS, NUM_REFERENCE_POINTS = 100_000, 1_000_000
# Distance up to which points count for the F-score, relative to the diagonal.
F_SCORE_THRESHOLD = 0.005
NUM_VIEWS = 8


def pinhole_parameters(scene: Scene, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Camera-to-world matrix, focal lengths and principal point of a camera whose scene frame is the world."""
    cameras = scene.cameras
    return tuple(part[index].double().numpy() for part in (cameras.c2w, cameras.focal, cameras.center))


def select_visible_faces(mesh: trimesh.Trimesh, scene: Scene) -> trimesh.Trimesh:
    """The faces that are visible at a pixel center of some image, at twice its resolution."""
    faces, is_visible = np.asarray(mesh.faces), np.zeros(len(mesh.faces), bool)
    for index in range(len(scene)):
        c2w, focal, center = pinhole_parameters(scene, index)
        width, height = scene.size(index)
        points, depth = rasterizer.project(np.asarray(mesh.vertices), c2w, focal, center)
        fragments = rasterizer.rasterize(points, depth, faces, (2 * width, 2 * height))
        is_visible[fragments.face[fragments.face >= 0]] = True
    return trimesh.Trimesh(mesh.vertices, faces[is_visible], process=False)


def one_sided_distances(mesh: trimesh.Trimesh, other: trimesh.Trimesh) -> np.ndarray:
    """Distances of sampled points on one mesh from ten times as many points on the other."""
    points, _ = trimesh.sample.sample_surface(mesh, NUM_QUERY_POINTS, seed=0)
    reference, _ = trimesh.sample.sample_surface(other, NUM_REFERENCE_POINTS, seed=1)
    return KDTree(reference).query(points)[0]


def score_geometry(mesh: trimesh.Trimesh, ground_truth: trimesh.Trimesh) -> dict[str, float]:
    """Accuracy, completeness [% of the diagonal] and F-score of a mesh."""
    diagonal = float(np.linalg.norm(np.ptp(ground_truth.vertices, axis=0)))
    to_ground_truth = one_sided_distances(mesh, ground_truth) / diagonal
    from_ground_truth = one_sided_distances(ground_truth, mesh) / diagonal
    precision, recall = (to_ground_truth < F_SCORE_THRESHOLD).mean(), (from_ground_truth < F_SCORE_THRESHOLD).mean()
    return {
        "accuracy_percent": 100 * to_ground_truth.mean(),
        "completeness_percent": 100 * from_ground_truth.mean(),
        "f_score": 2 * precision * recall / (precision + recall),
    }


def score_vertex_colors(mesh: trimesh.Trimesh, scene: Scene, depths: list[np.ndarray]) -> dict[str, float]:
    """Absolute differences between test images and the color of the vertex closest to each exact surface point."""
    tree, differences = KDTree(mesh.vertices), []
    for index, depth in enumerate(depths):
        rays = scene.rays(index)
        rgba = scene.images.image(index, scene.size(index)).reshape(-1, 4).numpy().astype(float)
        is_hit = np.isfinite(depth.reshape(-1)) & (rgba[:, 3] == 255)
        distance = np.where(is_hit, depth.reshape(-1), 0)[:, None]
        points = (rays.origins.numpy() + distance * rays.directions.numpy())[is_hit]
        colors = np.asarray(mesh.visual.vertex_colors)[tree.query(points)[1], :3]
        differences.append(np.abs(colors - rgba[is_hit, :3]).mean(1))
    all_differences = np.concatenate(differences)
    return {"gray_levels_mean": all_differences.mean(), "gray_levels_median": np.median(all_differences)}


def measure_still_life(run: LoadedRun, folder: Path) -> dict[str, Any]:
    """Scores of the mesh of the still life against the ground truth of the dataset."""
    ground_truth_folder = run.source.data / "ground_truth"
    start = time.perf_counter()
    MeshExport(keep_unseen=False).write(run, folder / "visible.ply")
    seconds = time.perf_counter() - start
    MeshExport().write(run, folder / "complete.ply")
    mesh, complete = rasterizer.load(folder / "visible.ply"), rasterizer.load(folder / "complete.ply")
    ground_truth = trimesh.load(ground_truth_folder / "mesh.ply", process=False)
    test = read_scene(run.source, "test", max_images=NUM_VIEWS)
    depths = [np.load(ground_truth_folder / f"{name.removeprefix('./')}_depth.npy") for name in test.names]
    result = score_geometry(mesh, select_visible_faces(ground_truth, run.scenes["train"]))
    result |= score_vertex_colors(mesh, test, depths)
    return result | {"watertight": bool(complete.is_watertight), "faces": len(mesh.faces), "seconds": seconds}


def measure_textured(run: LoadedRun, folder: Path, num_faces: int, texture_size: int) -> dict[str, Any]:
    """PSNR and silhouette overlap of a textured GLB in test views."""
    start = time.perf_counter()
    MeshExport(keep_unseen=False, num_faces=num_faces, texture_size=texture_size).write(run, folder / "scene.glb")
    seconds, mesh = time.perf_counter() - start, rasterizer.load(folder / "scene.glb")
    test = read_scene(run.source, "test", max_images=NUM_VIEWS)
    psnrs, overlaps = [], []
    for index in range(len(test)):
        rgba = rasterizer.image(mesh, *pinhole_parameters(test, index), test.size(index))
        rendered = np.round(255 * (rgba[..., :3] + 1 - rgba[..., 3:])) / 255
        object_mask = test.images.image(index, test.size(index))[..., 3].numpy() > 127
        rendered_mask = rgba[..., 3] > 0.5
        psnrs.append(-10 * np.log10(((rendered - test.ground_truth(index).numpy()) ** 2).mean()))
        overlaps.append((rendered_mask & object_mask).sum() / (rendered_mask | object_mask).sum())
    megabytes = (folder / "scene.glb").stat().st_size / 1e6
    return {"psnr": np.mean(psnrs), "overlap": np.mean(overlaps), "megabytes": megabytes, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--still-life", type=Path, required=True, help="run on the still life")
    parser.add_argument("--textured", type=Path, required=True, help="run to export with a texture")
    parser.add_argument("--num-faces", type=int, default=60_000, help="faces of the textured mesh")
    parser.add_argument("--texture-size", type=int, default=1024, help="width and height of the texture [pixels]")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        textured_run = read_run(options.textured)
        parts = {
            "still life": measure_still_life(read_run(options.still_life), Path(folder)),
            "textured": measure_textured(textured_run, Path(folder), options.num_faces, options.texture_size),
        }
    rounded = {part: {key: round(float(value), 4) for key, value in row.items()} for part, row in parts.items()}
    machine = {"machine": describe_machine(torch.device("cpu")), "commit": current_commit()}
    write_json(options.out / "meshes.json", machine | rounded)
    lines = ["| metric | value |", "| --- | --- |"]
    for part, row in rounded.items():
        lines += [f"| {part}: {key.replace('_', ' ')} | {value:g} |" for key, value in row.items()]
    with replacing(options.out / "meshes.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
