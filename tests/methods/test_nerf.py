import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lumifield.data.scene import Background, Frame, Images, Scene, sample_batch
from lumifield.errors import DataError
from lumifield.geometry.cameras import pinhole_cameras
from lumifield.geometry.rays import Ndc, Rays
from lumifield.methods.base import Method, RenderContext, TrainingContext
from lumifield.methods.nerf import Nerf
from lumifield.methods.nerf.method import NerfMethod
from lumifield.methods.nerf.occupancy_nerf import OccupancyNerf
from lumifield.optim.optimizers import build_optimizer
from lumifield.runtime.rng import Rng
from scenes import published

SMALL = Nerf(num_samples=12, num_fine_samples=12, hidden_dim=32, num_layers=3, batch_size=96, bf16="off")
OCCUPIED = replace(SMALL, occupancy=True, occupancy_resolution=16, num_occupancy_samples=64)
SIDE = 12


def ball(background: Background = "white", near: float = 2.0, far: float = 6.0, seed: int = 0) -> Scene:
    """A red ball of radius 1 at the origin, seen by three cameras at a distance of 4."""
    generator = torch.Generator().manual_seed(seed)
    cameras, pixels = [], []
    for _ in range(3):
        back = torch.nn.functional.normalize(torch.randn(3, generator=generator), dim=0)
        right = torch.nn.functional.normalize(torch.linalg.cross(back, torch.tensor([0.0, 0.0, 1.0])), dim=0)
        cameras.append(torch.stack([right, torch.linalg.cross(-back, right), -back, 4 * back], 1))
    c2w = torch.stack(cameras)
    bounds = torch.full((3,), near), torch.full((3,), far)
    box = torch.tensor([[-1.2] * 3, [1.2] * 3])
    views = pinhole_cameras(c2w, 1.5 * SIDE, (SIDE, SIDE))
    scene = Scene(views, ("a", "b", "c"), *bounds, box, Frame.identity(), background)
    for index in range(3):
        rays = scene.rays(index)
        nearest = torch.linalg.cross(rays.origins, rays.directions).norm(dim=-1)
        alpha = 255 * (nearest < 1).to(torch.uint8)
        pixels.append(torch.stack([0 * alpha + 200, 0 * alpha + 30, 0 * alpha + 30, alpha], -1))
    offsets = torch.arange(4) * SIDE**2
    return replace(scene, images=Images(torch.cat(pixels), offsets))


def rng(seed: int = 0, rank: int = 0, world: int = 1) -> Rng:
    return Rng(torch.Generator().manual_seed(seed), rank, world)


def built(settings: Nerf, scene: Scene, seed: int = 0) -> Method:
    torch.manual_seed(seed)
    return settings.build(scene)


def step(method: Method, scene: Scene, optimizer, index: int, source: Rng) -> float:
    method.before_step(index, source)
    batch = sample_batch(scene, method.rays_per_step(), source)
    losses = method.losses(method(batch.rays, TrainingContext(batch.background, index, source)), batch)
    optimizer.zero_grad()
    torch.stack(list(losses.values())).sum().backward()
    optimizer.step()
    return float(losses["rgb"].detach())


def trained(settings: Nerf, scene: Scene, steps: int) -> tuple[Method, list[float]]:
    method, source = built(settings, scene), rng(7)
    optimizer = build_optimizer(replace(settings.optimizer, lr=3e-3), method.param_groups())
    return method, [step(method, scene, optimizer, i, source) for i in range(steps)]


def test_parameter_counts():
    scene = ball()
    assert sum(p.numel() for p in Nerf().build(scene).parameters()) == 1_191_688
    assert sum(p.numel() for p in Nerf(early_skip=True).build(scene).parameters()) == 1_191_688
    assert sum(p.numel() for p in Nerf(num_fine_samples=0).build(scene).parameters()) == 595_844
    assert sum(p.numel() for p in Nerf(occupancy=True, occupancy_resolution=4).build(scene).parameters()) == 595_844


def slow_pass(method: NerfMethod, mlp, rays: Rays, row: int, z: list[float]) -> tuple[list[float], Tensor]:
    """Weights and composited color over white of one ray, sample by sample."""
    left, weights, color = 1.0, [], torch.zeros(3)
    view = mlp.directional(rays.viewdirs[row])
    for i, at in enumerate(z):
        point = rays.origins[row] + at * rays.directions[row]
        density, rgb = mlp(point[None], view[None])
        width = (z[i + 1] if i + 1 < len(z) else float(rays.far[row])) - at
        alpha = 1 - float(torch.exp(-density * width))
        weights.append(left * alpha)
        color += left * alpha * rgb[0]
        left *= 1 - alpha
    return weights, color + left


@torch.no_grad()
def test_a_deterministic_pass_equals_loops():
    scene = ball()
    method = built(SMALL, scene)
    assert isinstance(method, NerfMethod)
    rays = scene.rays(0)[slice(60, 64)]
    found = method(rays, RenderContext(torch.ones(3)))
    for row in range(4):
        coarse = [2 + 4 * i / 11 for i in range(12)]
        weights, _ = slow_pass(method, method.coarse, rays, row, coarse)
        bins = [0.5 * (a + b) for a, b in itertools.pairwise(coarse)]
        shares = [w + 1e-5 for w in weights[1:-1]]
        fine = list(coarse)
        for k in range(12):
            rest = k / 11 * sum(shares)
            for i, share in enumerate(shares):
                if rest <= share or i == len(shares) - 1:
                    fine.append(bins[i] + min(rest / share, 1) * (bins[i + 1] - bins[i]))
                    break
                rest -= share
        z = sorted(fine)
        weights, color = slow_pass(method, method.fine, rays, row, z)
        torch.testing.assert_close(found.rgb[row], color, rtol=0, atol=2e-4)
        depth = sum(w * at for w, at in zip(weights, z, strict=True)) / sum(weights)
        assert float(found.depth[row]) == pytest.approx(depth, abs=2e-3)
        assert float(found.opacity[row]) == pytest.approx(sum(weights), abs=2e-4)


@pytest.mark.parametrize(
    "settings", [SMALL, replace(SMALL, density_noise_std=1.0), OCCUPIED, replace(SMALL, num_fine_samples=0)]
)
def test_without_draws_a_pass_repeats_itself_and_with_draws_it_varies(settings: Nerf):
    scene = ball()
    method = built(settings, scene)
    rays = scene.rays(1)
    first, second = (method(rays, RenderContext(torch.ones(3))) for _ in range(2))
    assert torch.equal(first.rgb, second.rgb)
    assert first.coarse == ()
    random = [method(rays, TrainingContext(torch.ones(3), 0, rng(seed))).rgb for seed in (0, 0, 1)]
    assert torch.equal(random[0], random[1])
    assert not torch.equal(random[0], random[2])
    assert not torch.equal(random[0], first.rgb)


def test_without_perturbation_and_noise_draws_change_nothing():
    scene = ball()
    method = built(replace(SMALL, jitter=0.0), scene)
    rays = scene.rays(0)
    torch.testing.assert_close(
        method(rays, TrainingContext(torch.ones(3), 0, rng())).rgb, method(rays, RenderContext(torch.ones(3))).rgb
    )


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_two_processes_see_what_one_sees(noise: float):
    scene = ball()
    method = built(replace(SMALL, density_noise_std=noise), scene)

    def colors(rank: int, world: int) -> Tensor:
        return method(scene.rays(0)[slice(rank, 64, world)], TrainingContext(torch.ones(3), 0, rng(5, rank, world))).rgb

    whole = colors(0, 1)
    for rank in range(2):
        torch.testing.assert_close(colors(rank, 2), whole[rank::2])


def check_learned(method: Method, losses: list[float], scene: Scene):
    assert sum(losses[-5:]) / 5 < 0.4 * sum(losses[:3]) / 3
    with torch.no_grad():
        seen = method(scene.rays(0), RenderContext(torch.ones(3)))
    assert float(((seen.rgb - scene.ground_truth(0).reshape(-1, 3)) ** 2).mean()) < 0.05
    inside = method.density(torch.tensor([[0.0, 0.0, 0.95], [0.0, 0.0, 0.0]])).max()
    assert float(inside) > float(method.density(torch.tensor([[1.15, 1.15, 1.15]])))


@pytest.mark.parametrize("change", [{}, {"density_activation": "relu"}, {"num_fine_samples": 0}], ids=str)
def test_training_learns_the_ball(change: dict):
    scene = ball()
    check_learned(*trained(replace(SMALL, **change), scene, 60), scene)


@pytest.fixture(scope="module")
def warm() -> tuple[Method, list[float]]:
    """A method with an occupancy grid that has found the ball."""
    method, losses = trained(OCCUPIED, ball(), 60)
    for step in range(0, 480, 16):
        method.before_step(step, rng(step))
    return method, losses


def test_training_with_occupancy_learns_the_ball(warm: tuple[Method, list[float]]):
    check_learned(*warm, ball())


def test_losses_are_the_mean_squares_of_both_passes():
    scene = ball()
    method, source = built(SMALL, scene), rng()
    batch = sample_batch(scene, 10, source)
    rendered = method(batch.rays, TrainingContext(batch.background, 0, source))
    losses = {name: loss.detach() for name, loss in method.losses(rendered, batch).items()}
    assert float(losses["rgb"]) == pytest.approx(float(((rendered.rgb.detach() - batch.rgb) ** 2).mean()))
    assert float(losses["coarse"]) == pytest.approx(float(((rendered.coarse[0].detach() - batch.rgb) ** 2).mean()))
    assert rendered.samples == 10 * (12 + 24)
    assert method.rays_per_step() == 96


def test_gradients_reach_every_parameter():
    scene = ball()
    for settings in (SMALL, OCCUPIED):
        method, source = built(settings, scene), rng()
        batch = sample_batch(scene, 10, source)
        losses = method.losses(method(batch.rays, TrainingContext(batch.background, 0, source)), batch)
        torch.stack(list(losses.values())).sum().backward()
        for name, parameter in method.named_parameters():
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("settings", [SMALL, OCCUPIED])
def test_no_rays(settings: Nerf):
    scene = ball()
    rendered = built(settings, scene)(scene.rays(0)[slice(0, 0)], TrainingContext(torch.ones(3), 0, rng()))
    assert rendered.rgb.shape == (0, 3)
    assert rendered.depth.shape == rendered.opacity.shape == (0,)


@pytest.mark.parametrize("settings", [SMALL, OCCUPIED])
def test_empty_space_shows_the_background_at_far(settings: Nerf):
    scene = ball()
    method = built(replace(settings, density_activation="relu"), scene)
    for name, parameter in method.named_parameters():
        if name.endswith("density.bias"):
            torch.nn.init.constant_(parameter, -100.0)
    background = torch.tensor([0.2, 0.4, 0.6])
    rendered = method(scene.rays(0), RenderContext(background))
    torch.testing.assert_close(rendered.rgb, background.expand(SIDE**2, 3))
    assert rendered.depth.tolist() == [6.0] * SIDE**2


def test_behind_opaque_photographs_the_last_interval_has_no_end():
    scene = ball()
    thin = {"white": 0.0, "none": 1.0}
    for background, opacity in thin.items():
        method = built(SMALL, replace(scene, background=background))
        for name, parameter in method.named_parameters():
            if name.endswith("density.bias"):
                torch.nn.init.constant_(parameter, -12.0)
        rendered = method(scene.rays(0), RenderContext(torch.zeros(3)))
        torch.testing.assert_close(rendered.opacity, torch.full((SIDE**2,), opacity), rtol=0, atol=1e-2)


CHANGES = {
    "num_samples": 13,
    "num_fine_samples": 13,
    "disparity": True,
    "hidden_dim": 16,
    "num_layers": 4,
    "num_position_frequencies": 5,
    "num_direction_frequencies": 2,
    "density_activation": "relu",
    "early_skip": True,
    "bf16": "on",
}


@pytest.mark.parametrize("name", CHANGES)
def test_each_setting_changes_the_image(name: str):
    scene = ball()
    settings = replace(SMALL, num_layers=5)
    first, second = (built(s, scene) for s in (settings, replace(settings, **{name: CHANGES[name]})))
    images = [method(scene.rays(0), RenderContext(torch.ones(3))).rgb for method in (first, second)]
    assert float((images[0] - images[1]).detach().abs().max()) > 1e-5


@pytest.mark.parametrize("change", [{"jitter": 0.5}, {"density_noise_std": 1.0}])
def test_each_setting_of_training_changes_the_training_pass(change: dict[str, float]):
    scene = ball()
    context = TrainingContext(torch.ones(3), 0, rng())
    first = built(SMALL, scene)(scene.rays(0), context).rgb
    second = built(replace(SMALL, **change), scene)(scene.rays(0), TrainingContext(torch.ones(3), 0, rng())).rgb
    assert float((first - second).detach().abs().max()) > 1e-4


def test_view_directions_of_ndc_rays_are_the_scenes_unless_asked():
    scene = replace(ball(), near=torch.zeros(3), far=torch.ones(3), ndc=Ndc((18.0, 18.0), (SIDE, SIDE)))
    scene = replace(
        scene, cameras=pinhole_cameras(torch.eye(3, 4).expand(3, 3, 4), 18.0, (SIDE, SIDE)), background="none"
    )
    images = []
    for settings in (SMALL, replace(SMALL, ndc_viewdirs=True)):
        images.append(built(settings, scene)(scene.rays(0), RenderContext(torch.zeros(3))).rgb.detach())
    assert float((images[0] - images[1]).abs().max()) > 1e-4
    with pytest.raises(DataError, match="disparity: found rays that start at t = 0"):
        replace(SMALL, disparity=True).build(scene)


def test_settings_that_cannot_work_are_refused():
    with pytest.raises(DataError, match="samples: found 2"):
        Nerf(num_samples=2)
    with pytest.raises(DataError, match=r"density_noise_std: found 1\.0 with an occupancy grid"):
        Nerf(density_noise_std=1.0, occupancy=True)


def test_occupancy_looks_at_fewer_samples_once_it_is_warm(warm: tuple[Method, list[float]]):
    scene = ball()
    with torch.no_grad():
        before, after = (
            m(scene.rays(0), RenderContext(torch.ones(3))).samples for m in (built(OCCUPIED, scene), warm[0])
        )
    assert after < 0.8 * before


def test_samples_that_carry_nothing_are_left_out_of_the_gradient_pass_alone(warm: tuple[Method, list[float]]):
    method = warm[0]
    rays, context = ball().rays(0), RenderContext(torch.ones(3))
    with torch.no_grad():
        whole = method(rays, context)
    part = method(rays, context)
    assert part.samples < whole.samples
    torch.testing.assert_close(part.rgb, whole.rgb, rtol=0, atol=5e-3)


def test_no_space_is_given_up_before_anything_was_learned():
    """A fresh network has nearly one density everywhere: where it is below average says nothing about matter."""
    method = built(Nerf(occupancy=True, occupancy_resolution=16, bf16="off"), ball())
    assert isinstance(method, OccupancyNerf)
    method.before_step(0, rng())
    assert torch.equal(method.occupancy.occupied, method.occupancy.allowed)


def test_occupancy_returns_with_the_parameters(warm: tuple[Method, list[float]]):
    scene, method = ball(), warm[0]
    copy = built(OCCUPIED, scene.without_images(), seed=1)
    copy.load_state_dict(method.state_dict())
    context = RenderContext(torch.ones(3))
    assert torch.equal(copy(scene.rays(0), context).rgb, method(scene.rays(0), context).rgb)


def test_published_weights_need_relu(tmp_path: Path):
    with pytest.raises(DataError, match="density_activation: found softplus"):
        NerfMethod(SMALL, ball()).load_published(tmp_path / "epoch.ckpt")


def test_published_weights_of_both_networks_are_loaded(tmp_path: Path):
    settings = Nerf(num_samples=4, num_fine_samples=4, density_activation="relu", early_skip=True, bf16="off")
    first, second = (built(settings, ball(), seed) for seed in (0, 1))
    assert isinstance(first, NerfMethod)
    assert isinstance(second, NerfMethod)
    torch.save(published(first), tmp_path / "weights.ckpt")
    second.load_published(tmp_path / "weights.ckpt")
    for name, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[name]), name


def test_nothing_is_inside_an_unoccupied_cell():
    method = built(OCCUPIED, ball())
    assert isinstance(method, OccupancyNerf)
    middle = torch.zeros(1, 3)
    assert float(method.density(middle)) > 0
    method.occupancy.occupied.fill_(False)
    assert float(method.density(middle)) == 0
    assert float(method.query_density(middle)) > 0
