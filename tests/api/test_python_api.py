"""The public Python API as a program outside of the package uses it."""

import asyncio
import inspect
import subprocess
import sys
import typing
from importlib import import_module

import numpy as np
import pytest
import torch

import lumifield as lf
from lumifield.data.scene import Scene
from lumifield.methods.base import Method

SMALL = lf.Instant(num_levels=2, log2_hashmap_size=10, hidden_dim=8, occupancy_resolution=8, samples_per_step=64)


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> str:
    folder = str(tmp_path_factory.mktemp("api") / "scene")
    lf.synthesize_data(lf.StillLife(image_width=16, num_train=6, num_val=1, num_test=2, samples_per_pixel=1), folder)
    return folder


@pytest.fixture(scope="module")
def run(scene, tmp_path_factory) -> lf.Run:
    async def train() -> lf.Run:
        """Training inside a running event loop, as in a notebook."""
        return lf.train(scene, SMALL, steps=3, out=str(tmp_path_factory.mktemp("run") / "run"))

    return asyncio.run(train())


def test_a_scene_is_loaded_with_cameras_in_world_coordinates(scene):
    loaded = lf.load_scene(scene, "train", downscale=2)
    assert len(loaded) == len(loaded.cameras) == len(loaded.names) == 6
    assert loaded.image(0).shape == (8, 8, 4)
    assert loaded.cameras[0].size == (8, 8)
    assert loaded.ground_truth(0).max() <= 1


def test_a_view_is_rendered_at_any_size(run, tmp_path):
    camera = run.cameras("test")[0]
    view = run.render(camera, size=(12, 10), normals="depth")
    assert view.rgb.shape == view.normal.shape == (10, 12, 3)
    assert view.depth.shape == view.opacity.shape == (10, 12)
    assert view.save(str(tmp_path / "view.png")).is_file()


def test_a_run_is_evaluated_and_loaded_again(run):
    metrics = lf.load_run(str(run.folder)).evaluate("test", save_images=False)
    assert metrics.psnr == pytest.approx(np.mean([score.psnr for score in metrics.per_image]))
    assert metrics.report.is_file()


def test_points_are_queried_as_arrays_and_as_tensors(run):
    points = np.random.default_rng(0).uniform(-1, 1, (7, 3)).astype(np.float32)
    density, rgb = run.query(points)
    assert (density.shape, rgb.shape) == ((7,), (7, 3))
    found = run.query(torch.from_numpy(points))
    assert torch.equal(found[0], torch.from_numpy(density))


def test_a_path_of_own_cameras_and_exports_are_written(run, tmp_path):
    camera = lf.Camera.look_at((3, 0, 1), (0, 0, 0), fov=40, size=(16, 12))
    assert run.render_path(str(tmp_path / "path.gif"), [camera, camera]).is_file()
    assert run.export_cameras(str(tmp_path / "cameras.json")).is_file()
    assert lf.load_run(run.export_weights(tmp_path / "scene.zip")).splits == run.splits


def test_a_camera_looks_at_its_target_along_its_middle_ray():
    camera = lf.Camera.look_at((3, 0, 1), (0, 0, 0), fov=60, size=(15, 9))
    origins, directions = camera.rays()
    assert directions.shape == (9, 15, 3)
    np.testing.assert_allclose(directions[4, 7], -np.array([3, 0, 1]) / 10**0.5, atol=1e-6)
    np.testing.assert_allclose(origins, np.broadcast_to([3, 0, 1], origins.shape), atol=1e-6)
    top, bottom = directions[0, 7], directions[8, 7]
    assert np.degrees(np.arccos(top @ bottom)) == pytest.approx(2 * np.degrees(np.arctan(8 / 9 * np.tan(np.pi / 6))))
    assert camera.intrinsics[0, 0] == camera.resized(30, 18).intrinsics[0, 0] / 2


def test_a_mistake_names_path_field_and_value(tmp_path):
    with pytest.raises(lf.DataError) as caught:
        lf.load_scene(tmp_path / "nowhere")
    assert (caught.value.field, caught.value.found) == ("folder", "missing")


@pytest.mark.parametrize("name", [name for name in lf.__all__ if name != "__version__"])
def test_type_hints_of_public_names_resolve(name):
    value = getattr(lf, name)
    methods = inspect.getmembers(value, inspect.isfunction) if inspect.isclass(value) else [(name, value)]
    for _, function in methods:
        if function.__module__.startswith("lumifield"):
            # Settings import no torch: the types that `build` takes and returns are known once a method is built.
            known = vars(sys.modules[function.__module__]) | {"Scene": Scene, "Method": Method}
            if function.__name__ == "build":
                known |= vars(import_module(f"{function.__module__}.method"))
            typing.get_type_hints(function, known)


def test_the_import_is_light():
    program = "import sys, lumifield; print(sorted({'torch', 'numpy', 'numba', 'tyro'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout == "[]\n"
