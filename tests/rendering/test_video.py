"""Every camera path through scenes of every format, in every channel."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from analytic import run_of
from lumifield import data
from lumifield.data import Source
from lumifield.rendering import render
from lumifield.synthetic import StillLife, synthesize_data
from scenes import INSTANT

PATHS = ("spiral", "orbit", "spheric")
FORMATS = ("blender", "multicam", "llff")
CENTER = torch.zeros(1, 3)
"""Of the still life, in the world."""


@pytest.fixture(scope="module", params=FORMATS)
def run(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    small = StillLife(image_width=16, num_train=12, num_val=1, num_test=2, samples_per_pixel=1, ground_truth=False)
    settings = replace(small, format=request.param)
    synthesize_data(settings, folder / "data")
    train = data.read_scene(Source(folder / "data"), "train")
    torch.manual_seed(0)
    method = INSTANT.build(train).eval()
    return run_of(folder / "run", method, {"train": train.without_images()})


def frames(run, path, count):
    return render.make_path_cameras(run, path, count)


@pytest.mark.parametrize("path", PATHS)
def test_the_middle_of_the_scene_is_in_every_frame(run, path):
    cameras = frames(run, path, 48)
    seen, depth = cameras.project(run.scenes["train"].frame.to_scene(CENTER))
    assert bool((depth > 0).all())
    assert bool((seen[:, 0] > 0).all())
    assert bool((seen[:, 0] < cameras.size).all())


@pytest.mark.parametrize("path", PATHS)
def test_the_last_frame_joins_the_first(run, path):
    cameras = frames(run, path, 240)
    for track in (cameras.positions, cameras.forward, cameras.c2w[:, :, 1]):
        steps = (track - track.roll(1, 0)).norm(dim=-1)
        assert float(steps[0]) <= 1.1 * float(steps[1:].max()) + 1e-6


@pytest.mark.parametrize("path", PATHS)
def test_every_channel_of_every_path_is_shown(run, path, tmp_path):
    channels = ("rgb", "depth", "bands", "normal", "opacity")
    cameras = render.with_image_size(frames(run, path, 2), (12, 9))
    render.render_camera_path(
        run, cameras, tmp_path / "film", options=render.RenderOptions(channels), depth_format="npy"
    )
    compose_panels = np.stack([np.asarray(Image.open(file)) for file in sorted((tmp_path / "film").iterdir())])
    assert compose_panels.shape == (2, 9, 60, 3)
    depth, opacity = compose_panels[:, :, 12:24].astype(int), compose_panels[:, :, 48:]
    assert (opacity[..., 0] == opacity[..., 2]).all()
    assert (depth.max(-1) <= opacity[..., 0].astype(int) + 1).all()
    for name, panel in zip(channels, np.split(compose_panels, 5, 2), strict=True):
        assert panel.any(), name
    raw = np.load(tmp_path / "film_depth" / "0000.npy")
    assert raw.shape == (9, 12)
    assert (raw >= 0).all()
