import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from lumifield.data.scene import Images, Scene, sample_batch
from lumifield.errors import DataError
from lumifield.geometry.cameras import pinhole_cameras
from lumifield.geometry.rays import Ndc, Rays
from lumifield.methods.base import RenderContext, TrainingContext
from lumifield.methods.mip_nerf import MipNerf
from lumifield.methods.mip_nerf.gaussian_fields import GridField, build_position_encoding
from lumifield.methods.mip_nerf.method import MipNerfMethod
from lumifield.optim.optimizers import build_optimizer
from lumifield.runtime.rng import Rng
from lumifield.volume.mip_gaussians import PIXEL_RADIUS
from lumifield.volume.sampling import blur_weights, resample_edges
from scenes import MIP_NERF, ball

SMALL = replace(MIP_NERF, num_samples=12, hidden_dim=32, batch_size=96)
GRID = replace(
    SMALL, backbone="grid", grid_num_levels=3, grid_log2_hashmap_size=12, grid_base_resolution=4, grid_hidden_dim=16
)
WHITE = torch.ones(3)


def rng(seed: int = 0, rank: int = 0, world: int = 1) -> Rng:
    return Rng(torch.Generator().manual_seed(seed), rank, world)


def built(settings: MipNerf, scene: Scene, seed: int = 0) -> MipNerfMethod:
    torch.manual_seed(seed)
    return settings.build(scene)


def forward_scene() -> Scene:
    """Views of normalized device coordinates."""
    scene = replace(ball(3, 12), near=torch.zeros(3), far=torch.ones(3), ndc=Ndc((18.0, 18.0), (12, 12)))
    return replace(scene, cameras=pinhole_cameras(torch.eye(3, 4).repeat(3, 1, 1), 18.0, (12, 12)), background="none")


def scaled_scene() -> Scene:
    """Two sizes of the ball, the smaller ones weighing four times as much."""
    large, small = ball(3, 16), ball(3, 8)
    assert large.images is not None
    assert small.images is not None
    cameras = replace(
        large.cameras,
        **{
            name: torch.cat([getattr(s.cameras, name) for s in (large, small)])
            for name in ("c2w", "focal", "center", "size", "distortion")
        },
    )
    pixels = torch.cat([large.images.pixels, small.images.pixels])
    offsets = torch.cat([large.images.offsets, large.images.offsets[-1] + small.images.offsets[1:]])
    return replace(
        large,
        cameras=cameras,
        names=large.names + small.names,
        near=large.near.repeat(2),
        far=large.far.repeat(2),
        images=Images(pixels, offsets),
        loss_weight=torch.tensor([1.0, 1, 1, 4, 4, 4]),
    )


def losses_of(method: MipNerfMethod, scene: Scene, source: Rng, step: int = 0) -> dict[str, Tensor]:
    batch = sample_batch(scene, method.rays_per_step(), source)
    return method.losses(method(batch.rays, TrainingContext(batch.background, step, source)), batch)


def trained(settings: MipNerf, scene: Scene, steps: int, lr: float = 3e-3) -> tuple[MipNerfMethod, list[float]]:
    method, source, found = built(settings, scene), rng(7), []
    optimizer = build_optimizer(replace(settings.optimizer, lr=lr), method.param_groups())
    for step in range(steps):
        losses = losses_of(method, scene, source, step)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        found.append(float(losses["rgb"].detach()))
    return method, found


def test_the_full_network_has_the_published_number_of_parameters():
    scene = ball()
    assert sum(p.numel() for p in MipNerf().build(scene).parameters()) == 612_740
    assert sum(p.numel() for p in MipNerf(num_passes=4, num_samples=3).build(scene).parameters()) == 612_740
    plain = MipNerf(viewdirs=False).build(scene)
    assert sum(p.numel() for p in plain.parameters()) == 612_740 - 65_792 - 36_352 - 387 + 771
    early = MipNerf(early_skip=True).build(scene)
    assert [layer.in_features for layer in early.field.trunk].index(352) == 4
    assert [layer.in_features for layer in MipNerf().build(scene).field.trunk].index(352) == 5


def slow_pass(method: MipNerfMethod, rays: Rays, row: int, t: list[float]) -> tuple[list[float], Tensor]:
    """Weights and composited color over white of one ray, interval by interval, by the closed forms."""
    left, weights, color = 1.0, [], torch.zeros(3)
    d, radius = rays.directions[row].double(), PIXEL_RADIUS * float(rays.radius[row])
    view = method.field.directional(rays.viewdirs[row])
    for t0, t1 in pairwise(t):
        cubes, fifths = t1**3 - t0**3, t1**5 - t0**5
        mean = 3 * (t1**4 - t0**4) / (4 * cubes)
        along, across = 3 * fifths / (5 * cubes) - mean**2, radius**2 * 3 * fifths / (20 * cubes)
        full = along * d[:, None] * d + across * (torch.eye(3) - d[:, None] * d / (d @ d))
        place = rays.origins[row].double() + mean * d
        joined = torch.cat([place, full.diagonal()]).float()
        density, rgb = method.field(joined[None], view[None])
        alpha = 1 - math.exp(-float(density) * (t1 - t0))
        weights.append(left * alpha)
        color += left * alpha * (rgb[0] * 1.002 - 0.001)
        left *= 1 - alpha
    return weights, color + left


def test_a_deterministic_pass_equals_loops():
    scene = ball(3, 12)
    method = trained(SMALL, scene, 30)[0].requires_grad_(False)
    rays = scene.rays(0)[slice(64, 68)]
    found = method(rays, RenderContext(WHITE))
    for row in range(4):
        t = [2 + 4 * i / 12 for i in range(13)]
        weights, _ = slow_pass(method, rays, row, t)
        w = torch.tensor([weights])
        t = resample_edges(torch.tensor([t]), blur_weights(w, 0.01), 12, None)[0].tolist()
        weights, color = slow_pass(method, rays, row, t)
        torch.testing.assert_close(found.rgb[row], color, rtol=0, atol=2e-4)
        midpoints = [0.5 * (a + b) for a, b in pairwise(t)]
        depth = sum(w * at for w, at in zip(weights, midpoints, strict=True)) / sum(weights)
        assert float(found.depth[row]) == pytest.approx(depth, abs=2e-3)
        assert float(found.opacity[row]) == pytest.approx(sum(weights), abs=2e-4)


CHANGES = {
    "backbone": "grid",
    "num_samples": 13,
    "num_passes": 3,
    "ray_shape": "cylinder",
    "disparity": True,
    "resample_padding": 0.5,
    "integrated_encoding": False,
    "num_position_frequencies": 5,
    "min_position_octave": 1,
    "viewdirs": False,
    "num_direction_frequencies": 3,
    "min_direction_octave": 1,
    "hidden_dim": 16,
    "num_layers": 4,
    "early_skip": True,
    "density_activation": "relu",
    "density_bias": 0.0,
    "rgb_padding": 0.1,
    "bf16": "on",
}
GRID_CHANGES = {
    "grid_num_levels": 4,
    "grid_features_per_level": 2,
    "grid_log2_hashmap_size": 8,
    "grid_base_resolution": 5,
    "grid_max_resolution": 9,
    "grid_hidden_dim": 8,
    "integrated_encoding": False,
    "viewdirs": False,
    "density_activation": "relu",
    "density_bias": 0.0,
}


def difference(first: MipNerf, second: MipNerf) -> float:
    scene = ball(3, 12)
    images = [trained(s, scene, 3)[0](scene.rays(0), RenderContext(WHITE)).rgb.detach() for s in (first, second)]
    return float((images[0] - images[1]).abs().max())


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_changes_the_image(name: str):
    settings = replace(SMALL, num_layers=5)
    assert difference(settings, replace(settings, **{name: CHANGES[name]})) > 1e-5


@pytest.mark.parametrize("name", GRID_CHANGES)
def test_each_setting_of_the_grid_changes_the_image(name: str):
    assert difference(GRID, replace(GRID, **{name: GRID_CHANGES[name]})) > 1e-6


@pytest.mark.parametrize(
    "change",
    [{"jitter": False}, {"density_noise_std": 1.0}, {"stop_gradient": False}, {"coarse_loss_weight": 1.0}],
    ids=str,
)
def test_each_setting_of_training_changes_what_is_learned(change):
    assert difference(SMALL, replace(SMALL, **change)) > 1e-6


def test_losses_are_the_squares_of_all_passes():
    scene = scaled_scene()
    method = built(replace(SMALL, num_passes=3, coarse_loss_weight=0.25), scene)
    source = rng()
    batch = sample_batch(scene, 10, source)
    rendered = method(batch.rays, TrainingContext(batch.background, 0, source))
    assert len(rendered.coarse) == 2
    assert rendered.samples == 10 * 3 * 12
    passes = (rendered.rgb.detach(), *(rgb.detach() for rgb in rendered.coarse))
    errors = [sum(float(((rgb[i] - batch.rgb[i]) ** 2).sum()) for i in range(10)) / 30 for rgb in passes]
    losses = {name: float(loss.detach()) for name, loss in method.losses(rendered, batch).items()}
    assert losses == pytest.approx({"rgb": errors[0], "coarse": 0.25 * (errors[1] + errors[2])}, rel=1e-5)


@pytest.mark.parametrize("settings", [SMALL, GRID, replace(SMALL, density_noise_std=1.0)])
def test_without_draws_a_pass_repeats_itself_and_with_draws_it_varies(settings: MipNerf):
    scene = ball(3, 12)
    method = trained(settings, scene, 2)[0]
    rays = scene.rays(1)
    first, second = (method(rays, RenderContext(WHITE)) for _ in range(2))
    assert torch.equal(first.rgb, second.rgb)
    assert first.coarse == ()
    random = [method(rays, TrainingContext(WHITE, 0, rng(seed))).rgb for seed in (0, 0, 1)]
    assert torch.equal(random[0], random[1])
    assert not torch.equal(random[0], random[2])


def test_without_jitter_and_noise_draws_change_nothing():
    scene = ball(3, 12)
    method = built(replace(SMALL, jitter=False), scene)
    contexts = TrainingContext(WHITE, 0, rng()), RenderContext(WHITE)
    seen = (method(scene.rays(0), context).rgb for context in contexts)
    torch.testing.assert_close(*seen)


def test_noise_is_normal_and_of_the_stated_deviation():
    method = built(replace(SMALL, density_noise_std=2.0), ball(3, 12))
    noise = method.noise(torch.zeros(5000, 13), TrainingContext(WHITE, 0, rng()))
    assert noise is not None
    assert noise.shape == (5000, 12)
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)
    assert float(noise.std()) == pytest.approx(2, rel=0.02)


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_two_processes_see_what_one_sees(noise: float):
    scene = ball(3, 12)
    method = built(replace(SMALL, density_noise_std=noise), scene)

    def colors(rank: int, world: int) -> Tensor:
        return method(scene.rays(0)[slice(rank, 64, world)], TrainingContext(WHITE, 0, rng(5, rank, world))).rgb

    whole = colors(0, 1)
    for rank in range(2):
        torch.testing.assert_close(colors(rank, 2), whole[rank::2])


@pytest.mark.parametrize("stop", [True, False])
def test_gradients_reach_the_coarse_pass_through_edges_only_where_asked(stop: bool):
    scene = ball(3, 12)
    method = built(replace(SMALL, stop_gradient=stop), scene)
    weights = torch.rand(4, 12, requires_grad=True)
    t = method.resample_edges_for(torch.linspace(2, 6, 13).expand(4, 13), weights, None)
    assert t.requires_grad != stop


@pytest.mark.parametrize("settings", [SMALL, GRID, replace(SMALL, viewdirs=False)])
def test_gradients_reach_every_parameter(settings: MipNerf):
    scene = ball(3, 12)
    method = built(settings, scene)
    torch.stack(list(losses_of(method, scene, rng()).values())).sum().backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize(
    ("settings", "lr"),
    [
        (SMALL, 3e-3),
        (replace(SMALL, integrated_encoding=False), 3e-3),
        (replace(SMALL, viewdirs=False, num_passes=1), 3e-3),
        (replace(SMALL, num_passes=3), 3e-3),
        (GRID, 1e-3),
    ],
    ids=["full", "no IPE", "no viewdirs, one level", "three levels", "grid"],
)
def test_training_learns_the_ball_at_both_sizes(settings: MipNerf, lr: float):
    scene = scaled_scene()
    method, losses = trained(settings, scene, 80, lr)
    assert sum(losses[-5:]) / 5 < 0.5 * sum(losses[:3]) / 3
    with torch.no_grad():
        for index in (0, 3):
            seen = method(scene.rays(index), RenderContext(WHITE))
            assert float(((seen.rgb - scene.ground_truth(index).reshape(-1, 3)) ** 2).mean()) < 0.06
    axes = torch.cat([torch.eye(3), -torch.eye(3)])
    assert float(method.density(0.7 * axes).mean()) > float(method.density(1.3 * axes).mean())


def test_wide_cones_see_a_smoother_field():
    """The same rays with a hundredfold footprint: fine octaves and levels fade, so that neighbors look alike."""
    scene = ball(3, 12)
    for settings in (replace(SMALL, num_position_frequencies=12), GRID):
        method = trained(settings, scene, 10)[0]
        if isinstance(method.field, GridField):
            with torch.no_grad():
                method.field.grid.table.normal_(generator=torch.Generator().manual_seed(0))
        t = torch.linspace(2.5, 5.5, 200).expand(4, 200)
        rough = []
        for factor in (1e-3, 10.0):
            rays = scene.rays(0)[slice(64, 68)]
            rays = replace(rays, radius=rays.radius * factor)
            if isinstance(method.field, GridField):
                features = method.field.features(method.gaussians_of(rays, t))
            else:
                features = build_position_encoding(settings)(method.gaussians_of(rays, t))
            rough.append(float(features.detach().diff(dim=1).square().mean()))
        assert rough[1] < 0.5 * rough[0]


def test_levels_of_the_grid_fade_by_the_stated_formula():
    scene = ball(3, 12)
    field = built(GRID, scene).field
    assert isinstance(field, GridField)
    mean, width = torch.tensor([[0.2, -0.3, 0.1]]), 0.15
    joined = torch.cat([mean, torch.full((1, 3), width**2)], -1)
    plain = field.features(torch.cat([mean, torch.zeros(1, 3)], -1)).detach()
    expected, counted = [], []
    for level, cells in enumerate(field.grid.resolutions):
        share = math.erf(1 / math.sqrt(8 * (width / 3 * cells) ** 2))
        expected += [share * value for value in plain[0, 4 * level : 4 * level + 4].tolist()]
        counted.append(0.1 * (2 * share - 1))
    assert field.features(joined)[0].tolist() == pytest.approx(expected + counted, rel=1e-4)


def test_a_bounded_grid_holds_nothing_beyond_its_box():
    scene = ball(3, 12)
    method = trained(GRID, scene, 3)[0]
    density = method.density(torch.tensor([[0.0, 0, 0], [1.6, 0, 0], [0, 0, -30.0]]))
    assert float(density[0]) > 0
    assert density[1:].tolist() == [0, 0]


def test_cylinders_in_normalized_device_coordinates_and_cones_elsewhere():
    assert built(SMALL, ball(3, 12)).settings.ray_shape == "cone"
    scene = forward_scene()
    assert built(SMALL, scene).settings.ray_shape == "cylinder"
    assert built(replace(SMALL, ray_shape="cone"), scene).settings.ray_shape == "cone"
    variance = built(SMALL, scene).gaussians_of(scene.rays(0), torch.tensor([[0.1, 0.2, 0.9]]).repeat(144, 1))[..., 3:]
    radius = PIXEL_RADIUS * scene.rays(0).radius[0]
    assert float(variance[0, 0].sum()) == pytest.approx(
        float(0.1**2 / 12 * scene.rays(0).directions[0].square().sum() + 2 * radius**2 / 4), rel=1e-3
    )


def test_empty_space_shows_the_background_at_far():
    scene = ball(3, 12)
    method = built(replace(SMALL, density_activation="relu", density_bias=-100.0), scene)
    background = torch.tensor([0.2, 0.4, 0.6])
    rendered = method(scene.rays(0), RenderContext(background))
    torch.testing.assert_close(rendered.rgb, background.expand(144, 3))
    assert rendered.depth.tolist() == [6.0] * 144


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_samples": 0}, "num_samples: found 0"),
        ({"num_passes": 0}, "num_passes: found 0"),
        ({"num_position_frequencies": 0}, "num_position_frequencies: found 0"),
        ({"num_direction_frequencies": -1}, "num_direction_frequencies: found -1"),
        ({"density_noise_std": -1.0}, "density_noise_std: found -1"),
    ],
)
def test_settings_that_cannot_work_are_refused(change: dict, message: str):
    with pytest.raises(DataError, match=message):
        MipNerf(**change)


def test_disparity_needs_a_near_bound():
    with pytest.raises(DataError, match="mip-nerf: disparity: found rays that start at t = 0"):
        built(replace(SMALL, disparity=True), forward_scene())
