"""Writes the images of the documentation to docs/images, from the output of `make demo` and from other runs.

Run `python scripts/docs_images.py`. It writes orbit.gif (an orbit around the scene), views.jpg (test views: image,
rendering, error, depth) and mesh.jpg (the mesh, rendered from its file). These options write other images instead:

- `--captured RUN`: captured.jpg, or another `--name`: test views of a run on photos;
- `--in-the-wild RUN --appearance A B C`: wild.jpg, a tour between the poses and appearances of these images;
- `--new-views SEQUENCE`: new_views.jpg, frames of a synthesized sequence in the 7-Scenes format;
- `--objects RUN`: objects.jpg, of an evaluated meta-training: the support image of each test object, then pairs of
  another image and its rendering.

It prints the file sizes, and fails if they exceed one megabyte in total.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image

from lumifield.data.scene_collection import list_tasks
from lumifield.evaluation.evaluate import comparison_images, load_ground_truth
from lumifield.meta import FewShot
from lumifield.rendering.render import RenderOptions, make_path_cameras, render_camera_path
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import LoadedRun, read_run
from lumifield.runtime.files import replacing
from lumifield.runtime.image_io import to_uint8

ORBIT_FRAMES, ORBIT_SIZE, ORBIT_FPS = 36, (200, 200), 12
NUM_SHOWN = 3
TOUR_FRAMES, TOUR_SIZE = 11, (120, 180)
NUM_NEW_VIEWS = 6
OBJECT_SIZE = (100, 100)
MESH_SIZE = (300, 260)
PAGE_WIDTH = 700
MAX_BYTES = 1_000_000


def main(
    run: Path = Path("demo/run"),
    captured: Path | None = None,
    name: str = "captured",
    in_the_wild: Path | None = None,
    appearance: tuple[str, ...] = (),
    new_views: Path | None = None,
    objects: Path | None = None,
    out: Path = Path("docs/images"),
) -> None:
    """Writes images of RUN, CAPTURED, IN_THE_WILD with the APPEARANCE of images, NEW_VIEWS, or OBJECTS to OUT."""
    if objects is not None:
        files = write_objects(objects, out / "objects.jpg")
    elif new_views is not None:
        files = write_new_views(new_views, out)
    elif in_the_wild is not None:
        files = write_in_the_wild(in_the_wild, appearance, out)
    elif captured is not None:
        files = write_captured(captured, out / f"{name}.jpg")
    else:
        files = write_demo(run, out)
    for file in files:
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB")
    if sum(file.stat().st_size for file in files) > MAX_BYTES:
        raise SystemExit("too large in total: lower ORBIT_FRAMES or ORBIT_SIZE")


def load_on_fastest_device(run: Path) -> LoadedRun:
    """Loads a run on the fastest available device."""
    return read_run(run, device="cuda" if torch.cuda.is_available() else "cpu")


def write_demo(run: Path, out: Path) -> tuple[Path, ...]:
    """Writes an orbit around the scene, test views, and the mesh."""
    loaded_run, files = load_on_fastest_device(run), (out / "orbit.gif", out / "views.jpg", out / "mesh.jpg")
    render_camera_path(
        loaded_run, make_path_cameras(loaded_run, "orbit", ORBIT_FRAMES, ORBIT_SIZE), files[0], fps=ORBIT_FPS
    )
    save_jpeg(make_view_sheet(loaded_run), files[1])
    save_jpeg(render_mesh_views(loaded_run, run.with_name("mesh.glb")), files[2])
    return files


def write_captured(run: Path, file: Path) -> tuple[Path, ...]:
    """Writes test views at the width of a page."""
    sheet = make_view_sheet(load_on_fastest_device(run))
    save_jpeg(sheet.reduce(max(sheet.width // PAGE_WIDTH, 1)), file)
    return (file,)


def write_in_the_wild(run: Path, names: tuple[str, ...], out: Path) -> tuple[Path, ...]:
    """Writes frames of a tour through images, side by side."""
    loaded_run = load_on_fastest_device(run)
    cameras = make_path_cameras(loaded_run, "tour", TOUR_FRAMES, TOUR_SIZE, through=names)
    with tempfile.TemporaryDirectory() as folder:
        render_camera_path(loaded_run, cameras, Path(folder) / "tour", options=RenderOptions(appearance=names))
        save_jpeg(concatenate_images(sorted((Path(folder) / "tour").glob("*.png"))), out / "wild.jpg")
    return (out / "wild.jpg",)


def write_new_views(sequence: Path, out: Path) -> tuple[Path, ...]:
    """Writes evenly spaced images of a sequence, side by side."""
    files = sorted(sequence.rglob("*.color.png"))
    save_jpeg(
        concatenate_images([files[row] for row in np.linspace(0, len(files) - 1, NUM_NEW_VIEWS).astype(int)]),
        out / "new_views.jpg",
    )
    return (out / "new_views.jpg",)


def write_objects(run_folder: Path, file: Path) -> tuple[Path, ...]:
    """Writes one row per test object of an evaluated meta-training."""
    source, rows = load_on_fastest_device(run_folder).source, []
    assert source is not None
    for task in list_tasks(source, "test"):
        support, queries = task.load_images(slice(1)), task.load_images(slice(*FewShot().held_out_frames))
        row = [to_uint8(support.ground_truth(0))]
        for index in np.linspace(0, len(queries) - 1, NUM_SHOWN).astype(int):
            rendering = np.array(Image.open(run_folder / "eval" / "test" / task.name / f"{index:03d}.png"))
            row += [to_uint8(queries.ground_truth(int(index))), torch.from_numpy(rendering)]
        rows.append(
            np.concatenate([np.asarray(Image.fromarray(image.numpy()).resize(OBJECT_SIZE)) for image in row], 1)
        )
    save_jpeg(Image.fromarray(np.concatenate(rows)), file)
    return (file,)


def concatenate_images(files: list[Path]) -> Image.Image:
    """Images of equal size, side by side."""
    return Image.fromarray(np.concatenate([np.asarray(Image.open(file)) for file in files], 1))


def save_jpeg(image: Image.Image, path: Path) -> None:
    """Writes a JPEG file."""
    with replacing(path) as temporary:
        image.save(temporary, format="jpeg", quality=88)


def make_view_sheet(run: LoadedRun) -> Image.Image:
    """Evenly spaced test views, one per row: ground truth, rendering, error and depth."""
    scene = load_ground_truth(run, "test")
    rows = []
    for index in range(0, len(scene), max(len(scene) // NUM_SHOWN, 1))[:NUM_SHOWN]:
        view = render_view(run.method, scene, index, device=run.device)
        rows.append(torch.cat(list(comparison_images(view, scene, index).values()), 1))
    return Image.fromarray(torch.cat(rows).numpy())


def render_mesh_views(run: LoadedRun, mesh: Path) -> Image.Image:
    """The mesh over white from three directions."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    import rasterizer

    cameras, mesh_model, views = make_path_cameras(run, "orbit", NUM_SHOWN, MESH_SIZE), rasterizer.load(mesh), []
    for index in range(NUM_SHOWN):
        intrinsics = (cameras.focal[index].numpy(), cameras.center[index].numpy())
        rgba = torch.from_numpy(rasterizer.image(mesh_model, cameras.c2w[index].numpy(), *intrinsics, MESH_SIZE))
        views.append(to_uint8(rgba[..., :3] + 1 - rgba[..., 3:]))
    return Image.fromarray(torch.cat(views, 1).numpy())


if __name__ == "__main__":
    tyro.cli(main)
