"""Makes the README's images in docs/images from what `make demo` leaves, and from a run on images.

Run `python scripts/images.py`. It writes orbit.gif (a round about the scene), views.jpg (test views: image,
rendering, error, depth) and mesh.jpg (the mesh, drawn from its file alone). Something else comes in their place with

- `--captured RUN`: captured.jpg, or another `--name`: test views of a run on images;
- `--in-the-wild RUN --appearance A B C`: wild.jpg, a way from the place and light of one image to the next one's;
- `--new-views SEQUENCE`: new_views.jpg, some of a synthetic sequence in 7-Scenes' layout;
- `--objects START`: objects.jpg, of an evaluated start: the image that it has seen of each test object, then other
  images and what it shows in their place.

It says how large they are, and fails where together they exceed one megabyte.
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
from lumifield.runs.run_folder import LoadedRun, load_run
from lumifield.runtime.files import replacing
from lumifield.runtime.image_io import to_uint8

ORBIT_FRAMES, ORBIT_SIZE, ORBIT_FPS = 36, (200, 200), 12
SHOWN = 3
WAY_FRAMES, WAY_SIZE = 11, (120, 180)
NEW_VIEWS = 6
OBJECT_SIZE = (100, 100)
MESH_SIZE = (300, 260)
PAGE_WIDTH = 700
MOST_BYTES = 1_000_000


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
    """Makes images in OUT of RUN, CAPTURED, IN_THE_WILD with the APPEARANCE of images, NEW_VIEWS, or OBJECTS."""
    if objects is not None:
        files = of_objects(objects, out / "objects.jpg")
    elif new_views is not None:
        files = of_new_views(new_views, out)
    elif in_the_wild is not None:
        files = of_the_wild(in_the_wild, appearance, out)
    elif captured is not None:
        files = of_photographs(captured, out / f"{name}.jpg")
    else:
        files = of_the_demo(run, out)
    for file in files:
        print(f"{file}: {file.stat().st_size / 1000:.0f} kB")
    if sum(file.stat().st_size for file in files) > MOST_BYTES:
        raise SystemExit("too large together: lower ORBIT_FRAMES or ORBIT_SIZE")


def opened(run: Path) -> LoadedRun:
    """A run where it computes fastest."""
    return load_run(run, device="cuda" if torch.cuda.is_available() else "cpu")


def of_the_demo(run: Path, out: Path) -> tuple[Path, ...]:
    """A round about the scene, test views, and the mesh."""
    trained, files = opened(run), (out / "orbit.gif", out / "views.jpg", out / "mesh.jpg")
    render_camera_path(trained, make_path_cameras(trained, "orbit", ORBIT_FRAMES, ORBIT_SIZE), files[0], fps=ORBIT_FPS)
    save(sheet(trained), files[1])
    save(drawn(trained, run.with_name("mesh.glb")), files[2])
    return files


def of_photographs(run: Path, file: Path) -> tuple[Path, ...]:
    """Test views, as wide as a page."""
    shown = sheet(opened(run))
    save(shown.reduce(max(shown.width // PAGE_WIDTH, 1)), file)
    return (file,)


def of_the_wild(run: Path, names: tuple[str, ...], out: Path) -> tuple[Path, ...]:
    """Frames of a tour of images, side by side."""
    trained = opened(run)
    cameras = make_path_cameras(trained, "tour", WAY_FRAMES, WAY_SIZE, through=names)
    with tempfile.TemporaryDirectory() as folder:
        render_camera_path(trained, cameras, Path(folder) / "way", options=RenderOptions(appearance=names))
        save(in_a_row(sorted((Path(folder) / "way").glob("*.png"))), out / "wild.jpg")
    return (out / "wild.jpg",)


def of_new_views(sequence: Path, out: Path) -> tuple[Path, ...]:
    """Evenly spread images of a sequence, side by side."""
    files = sorted(sequence.rglob("*.color.png"))
    save(in_a_row([files[row] for row in np.linspace(0, len(files) - 1, NEW_VIEWS).astype(int)]), out / "new_views.jpg")
    return (out / "new_views.jpg",)


def of_objects(start: Path, file: Path) -> tuple[Path, ...]:
    """The test objects of an evaluated start, a row each."""
    source, rows = opened(start).source, []
    assert source is not None
    for task in list_tasks(source, "test"):
        seen, others = task.photographs(slice(1)), task.photographs(slice(*FewShot().held_out))
        row = [to_uint8(seen.ground_truth(0))]
        for index in np.linspace(0, len(others) - 1, SHOWN).astype(int):
            found = np.array(Image.open(start / "eval" / "test" / task.name / f"{index:03d}.png"))
            row += [to_uint8(others.ground_truth(int(index))), torch.from_numpy(found)]
        rows.append(np.concatenate([np.asarray(Image.fromarray(one.numpy()).resize(OBJECT_SIZE)) for one in row], 1))
    save(Image.fromarray(np.concatenate(rows)), file)
    return (file,)


def in_a_row(files: list[Path]) -> Image.Image:
    """Images of one size side by side."""
    return Image.fromarray(np.concatenate([np.asarray(Image.open(file)) for file in files], 1))


def save(image: Image.Image, path: Path) -> None:
    """An image as a JPEG file."""
    with replacing(path) as temporary:
        image.save(temporary, format="jpeg", quality=88)


def sheet(run: LoadedRun) -> Image.Image:
    """Evenly spread test views, one a row: truth, prediction, error and depth."""
    scene = load_ground_truth(run, "test")
    rows = []
    for index in range(0, len(scene), max(len(scene) // SHOWN, 1))[:SHOWN]:
        view = render_view(run.method, scene, index, device=run.device)
        rows.append(torch.cat(list(comparison_images(view, scene, index).values()), 1))
    return Image.fromarray(torch.cat(rows).numpy())


def drawn(run: LoadedRun, mesh: Path) -> Image.Image:
    """The mesh over white from three sides."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    import rasterizer

    cameras, loaded, sides = make_path_cameras(run, "orbit", SHOWN, MESH_SIZE), rasterizer.load(mesh), []
    for index in range(SHOWN):
        lens = (cameras.focal[index].numpy(), cameras.center[index].numpy())
        rgba = torch.from_numpy(rasterizer.image(loaded, cameras.c2w[index].numpy(), *lens, MESH_SIZE))
        sides.append(to_uint8(rgba[..., :3] + 1 - rgba[..., 3:]))
    return Image.fromarray(torch.cat(sides, 1).numpy())


if __name__ == "__main__":
    tyro.cli(main)
