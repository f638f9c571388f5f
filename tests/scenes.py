"""A shaded ball as images: small enough to be learned in seconds, on the disk or as a `Scene`."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from analytic import around
from lumifield.data import Source
from lumifield.data.scene import Frame, Images, Scene
from lumifield.geometry.cameras import pinhole_cameras
from lumifield.geometry.poses import opengl_to_opencv
from lumifield.geometry.rays import Ndc
from lumifield.methods import Instant, MipNerf, Nerf, NerfW, Nlr, SimpleNerf
from lumifield.methods.base import Method
from lumifield.runtime.image_io import to_uint8

RADIUS = 0.8
FOCAL_OF_WIDTH = 1.5

INSTANT = Instant(
    num_levels=4,
    log2_hashmap_size=12,
    hidden_dim=16,
    base_resolution=4,
    max_resolution=32,
    occupancy_resolution=16,
    samples_per_step=1024,
    bf16="off",
)
NERF = Nerf(
    num_samples=8,
    num_fine_samples=8,
    hidden_dim=16,
    num_layers=3,
    num_position_frequencies=4,
    num_direction_frequencies=2,
    batch_size=64,
    bf16="off",
)

NERF_W = NerfW(
    grid_num_levels=4,
    grid_log2_hashmap_size=12,
    grid_hidden_dim=16,
    grid_max_resolution=32,
    grid_occupancy_resolution=16,
    grid_samples_per_step=1024,
    appearance_dim=4,
    transient_dim=3,
    bf16="off",
)
NERF_W_MLP = NerfW(
    backbone="mlp",
    num_samples=8,
    num_fine_samples=8,
    hidden_dim=16,
    num_layers=3,
    num_position_frequencies=4,
    num_direction_frequencies=2,
    batch_size=64,
    appearance_dim=4,
    transient_dim=3,
    bf16="off",
)
MIP_NERF = MipNerf(
    num_samples=8,
    hidden_dim=16,
    num_layers=3,
    num_position_frequencies=6,
    num_direction_frequencies=2,
    batch_size=64,
    bf16="off",
)

SIMPLE_NERF = SimpleNerf(
    num_samples=12, hidden_dim=16, num_layers=2, num_position_frequencies=6, num_octaves=4.0, batch_size=32, bf16="off"
)

NLR = Nlr(
    sdf_hidden_dim=16,
    sdf_num_layers=1,
    feature_dim=4,
    num_encoder_stages=2,
    encoder_width=4,
    num_decoder_levels=1,
    decoder_width=4,
    patch_size=6,
    num_mask_rays=32,
    num_mask_samples=8,
    num_eikonal_points=32,
    num_mask_only_steps=0,
    bf16="off",
)

SMALL = {
    "instant": INSTANT,
    "mip-nerf": MIP_NERF,
    "mip-nerf, three passes": replace(MIP_NERF, num_passes=3, viewdirs=False, integrated_encoding=False),
    "mip-nerf, grid": replace(
        MIP_NERF,
        backbone="grid",
        grid_num_levels=3,
        grid_log2_hashmap_size=10,
        grid_base_resolution=4,
        grid_max_resolution=16,
        grid_hidden_dim=8,
    ),
    "nerf": NERF,
    "nerf, one pass": replace(NERF, num_fine_samples=0),
    "nerf-w": NERF_W,
    "nerf-w, mlp": NERF_W_MLP,
    "nlr": NLR,
    "nlr, grid and colors alone": replace(
        NLR,
        backbone="grid",
        grid_num_levels=2,
        grid_log2_hashmap_size=8,
        grid_max_resolution=16,
        features="rgb",
        blending="lumigraph",
    ),
    "simple-nerf": SIMPLE_NERF,
    "simple-nerf, official": replace(SIMPLE_NERF, sampling="official", density_activation="relu", weight_init="normal"),
    "nerf, occupied": replace(NERF, occupancy=True, occupancy_resolution=8, num_occupancy_samples=32),
}


def ball(n: int = 8, size: int = 16) -> Scene:
    """`n` views with alpha, from a ring of cameras about a ball colored by its normals."""
    cameras = around(n, (size, size))
    cameras = replace(cameras, focal=torch.full((n, 2), FOCAL_OF_WIDTH * size))
    scene = Scene(
        cameras=cameras,
        names=tuple(f"./view_{index}" for index in range(n)),
        near=torch.full((n,), 2.0),
        far=torch.full((n,), 6.0),
        box=torch.tensor([[-1.5] * 3, [1.5] * 3]),
        frame=Frame.identity(),
        background="white",
    )
    pixels = torch.cat([photograph(scene, index).reshape(-1, 4) for index in range(n)])
    return replace(scene, images=Images(pixels, torch.arange(n + 1) * size**2))


def bounded() -> Scene:
    """A few small views with alpha."""
    return ball(4, 10)


def unbounded() -> Scene:
    """The same, opaque, with matter all about."""
    near, far = torch.full((4,), 0.05), torch.full((4,), 100.0)
    return replace(bounded(), images=without_alpha(bounded()), background="none", unbounded=True, near=near, far=far)


def forward() -> Scene:
    """The same images from cameras in one place, in normalized device coordinates."""
    cameras = pinhole_cameras(torch.eye(3, 4).repeat(4, 1, 1), 12.0, (10, 10))
    space = {"near": torch.zeros(4), "far": torch.ones(4), "box": torch.tensor([[-1.1] * 3, [1.1] * 3])}
    images, ndc = without_alpha(bounded()), Ndc((12.0, 12.0), (10, 10))
    return replace(bounded(), cameras=cameras, images=images, background="none", ndc=ndc, **space)


def without_alpha(scene: Scene) -> Images:
    """The images of a scene without their alpha channel."""
    assert scene.images is not None
    return Images(scene.images.pixels[:, :3].contiguous(), scene.images.offsets)


SCENES = {"bounded": bounded, "unbounded": unbounded, "forward": forward}


def pairs(names: Iterable[str] = SMALL) -> list[tuple[str, str]]:
    """Methods and the scenes that they learn: all, but surfaces have no colors in normalized device coordinates."""
    every = itertools.product(names, SCENES)
    return [(name, place) for name, place in every if place != "forward" or not isinstance(SMALL[name], Nlr)]


def photograph(scene: Scene, index: int) -> Tensor:
    """What one camera sees of the ball, uint8 with straight alpha; transparent pixels are black."""
    rays = scene.rays(index)
    b = (rays.origins * rays.directions).sum(-1)
    inner = b**2 - (rays.origins**2).sum(-1) + RADIUS**2
    hit = inner > 0
    points = rays.origins + (-b - inner.clamp_min(0).sqrt())[:, None] * rays.directions
    rgba = torch.cat([points / RADIUS * 0.4 + 0.5, torch.ones(len(rays), 1)], -1) * hit[:, None]
    width, height = scene.size(index)
    return to_uint8(rgba).reshape(height, width, 4)


def written(root: Path, *, views: int = 8, size: int = 16, held_out: int = 2) -> Source:
    """The ball in Blender's format; the val and test cameras stand between those of the train split."""
    whole = ball(views * 2, size)
    between = list(range(1, 2 * held_out, 2))
    for split, rows in (("train", list(range(0, 2 * views, 2))), ("val", between), ("test", between)):
        frames = []
        for row in rows:
            file = root / split / f"r_{row}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(photograph(whole, row).numpy()).save(file)
            pose = [*opengl_to_opencv(whole.cameras.c2w[row]).tolist(), [0.0, 0.0, 0.0, 1.0]]
            frames.append({"file_path": f"./{split}/r_{row}", "transform_matrix": pose})
        content = {"camera_angle_x": 2 * math.atan(0.5 / FOCAL_OF_WIDTH), "frames": frames}
        (root / f"transforms_{split}.json").write_text(json.dumps(content))
    return Source(root)


def published(method: Method) -> dict[str, Tensor]:
    """The parameters of method `nerf` under the names of nerf_pl's checkpoints."""
    names = {"density": "sigma", "feature": "xyz_encoding_final", "side": "dir_encoding.0", "color": "rgb.0"}
    names |= {f"trunk.{index}": f"xyz_encoding_{index + 1}.0" for index in range(8)}
    state = {}
    for name, value in method.state_dict().items():
        network, layer = name.split(".", 1)
        layer, kind = layer.rsplit(".", 1)
        state[f"nerf_{network}.{names[layer]}.{kind}"] = value
    return state


def cut_off(image: Path) -> None:
    """Keeps the first half of a file."""
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])


def opaque(root: Path) -> None:
    """Takes the alpha channel from every image below a folder."""
    for file in root.rglob("*.png"):
        with Image.open(file) as image:
            pixels = np.asarray(image)[..., :3]
        Image.fromarray(np.ascontiguousarray(pixels)).save(file)
