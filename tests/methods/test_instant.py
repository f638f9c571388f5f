from dataclasses import replace

import pytest
import torch

from lumifield.data.scene import Images, Scene, sample_batch
from lumifield.errors import DataError
from lumifield.geometry.cameras import pinhole_cameras
from lumifield.geometry.rays import Ndc
from lumifield.kernels import packed_weights
from lumifield.methods import Instant
from lumifield.methods.base import RenderContext, TrainingContext
from lumifield.methods.instant.method import MAX_RAYS, ROUND, InstantMethod, pad_rows, scale_gradients
from lumifield.methods.instant.ray_samplers import OccupancySampler, ProposalSampler, RaySamples, pack_intervals
from lumifield.optim.optimizers import build_optimizer
from lumifield.runtime.rng import Rng
from scenes import INSTANT, RADIUS, ball

WHITE = torch.ones(3)
MIDDLE = torch.full((2, 3), 0.5)


def rng(seed: int = 0) -> Rng:
    return Rng(torch.Generator().manual_seed(seed))


def built(scene: Scene, settings: Instant = INSTANT) -> InstantMethod:
    torch.manual_seed(0)
    return settings.build(scene)


def opened(scene: Scene) -> Scene:
    """The scene as opaque images of open space."""
    assert scene.images is not None
    images = Images(scene.images.pixels[:, :3].contiguous(), scene.images.offsets)
    n = len(scene)
    bounds = {"near": torch.full((n,), 0.05), "far": torch.full((n,), 100.0)}
    return replace(scene, images=images, background="none", unbounded=True, **bounds)


def shrunk(scene: Scene) -> Scene:
    """The scene with cameras at a distance of 1, as readers hand out open scenes."""
    c2w = scene.cameras.c2w.clone()
    c2w[..., 3] /= 4
    return replace(scene, cameras=replace(scene.cameras, c2w=c2w), box=scene.box / 4)


def forward(n: int = 3) -> Scene:
    cameras = pinhole_cameras(torch.eye(3, 4).repeat(n, 1, 1), 12.0, (10, 10))
    scene = opened(ball(n, 10))
    bounds = {"near": torch.zeros(n), "far": torch.ones(n), "box": torch.tensor([[-1.1] * 3, [1.1] * 3])}
    return replace(scene, cameras=cameras, unbounded=False, ndc=Ndc((12.0, 12.0), (10, 10)), **bounds)


def objective(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.stack(list(losses.values())).sum()


@torch.enable_grad()
def trained(scene: Scene, steps: int, settings: Instant = INSTANT) -> InstantMethod:
    method, source = built(scene, settings), rng(3)
    optimizer = build_optimizer(settings.optimizer, method.param_groups())
    for step in range(steps):
        method.before_step(step, source)
        batch = sample_batch(scene, method.rays_per_step(), source)
        rendered = method(batch.rays, TrainingContext(batch.background, step, source))
        optimizer.zero_grad()
        objective(method.losses(rendered, batch)).backward()
        optimizer.step()
        method.after_step(step, len(batch.rays), rendered.samples)
    return method


@torch.no_grad()
def test_it_learns_the_ball():
    scene = ball(8, 24)
    method = trained(scene, 150)
    seen = method(scene.rays(3), RenderContext(WHITE))
    error = float(((seen.rgb - scene.ground_truth(3).reshape(-1, 3)) ** 2).mean())
    assert error < 0.004
    assert scene.images is not None
    solid = scene.images.image(3, (24, 24))[..., 3].reshape(-1) == 255
    assert float((seen.opacity > 0.5).eq(solid).float().mean()) > 0.95
    middle = seen.depth.reshape(24, 24)[11:13, 11:13]
    assert float((middle - (4 - RADIUS)).abs().max()) < 0.8


@pytest.mark.parametrize("scene", [ball(3, 10), opened(ball(3, 10)), forward()], ids=["bounded", "open", "ndc"])
def test_gradients_reach_every_parameter(scene):
    method, source = built(scene), rng()
    if isinstance(
        method.sampler, ProposalSampler
    ):  # a proposal that covers everything, as at first, has nothing to learn
        method.sampler.grid.table.data.sub_(3)
    batch = sample_batch(scene, 200, source)
    objective(method.losses(method(batch.rays, TrainingContext(batch.background, 0, source)), batch)).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad is not None, name
        assert bool(torch.isfinite(parameter.grad).all()), name
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("scene", [ball(3, 10), opened(ball(3, 10)), forward()], ids=["bounded", "open", "ndc"])
def test_where_no_cell_is_occupied_the_background_is_seen(scene):
    method = built(scene, replace(INSTANT, sampling="occupancy"))
    assert isinstance(method.sampler, OccupancySampler)
    method.sampler.occupancy.occupied.zero_()
    color = torch.tensor([0.2, 0.4, 0.6])
    rays = scene.rays(0)
    seen = method(rays, TrainingContext(color, 0, rng()))
    assert torch.equal(seen.rgb, color.expand(len(rays), 3))
    assert torch.equal(seen.depth, rays.far)
    assert float(seen.opacity.detach().abs().max()) == seen.samples == 0
    method.losses(seen, sample_batch(scene, len(rays), rng()))["rgb"].backward()


@pytest.mark.parametrize("scene", [ball(3, 10), opened(ball(3, 10))], ids=["bounded", "open"])
def test_no_rays_train_too(scene):
    method = built(scene)
    seen = method(scene.rays(0)[slice(0, 0)], TrainingContext(WHITE, 0, rng()))
    assert (len(seen.rgb), seen.samples) == (0, 0)
    objective({"rgb": seen.rgb.sum(), **seen.penalties}).backward()


@pytest.mark.slow
@torch.no_grad()
def test_behind_opaque_photographs_proposals_find_the_ball():
    scene = shrunk(opened(ball(24, 24)))
    method = trained(scene, 400, replace(INSTANT, num_samples=12, samples_per_step=4096))
    middle = torch.zeros(24, 24, dtype=torch.bool)
    middle[10:14, 10:14] = True
    rays = scene.rays(3)[middle.view(-1)]
    assert float(((method(rays, RenderContext(WHITE)).rgb - scene.ground_truth(3)[middle]) ** 2).mean()) < 0.01
    packed = method.sampler(rays, method.space, method.density, None).packed
    weights = packed_weights(method.query_density(packed.points(rays)) * packed.lengths(rays), packed.offsets)
    at_the_ball = (packed.midpoints - (4 - RADIUS) / 4).abs() < 0.05
    assert float(weights[at_the_ball].sum() / weights.sum()) > 0.5
    assert float(at_the_ball.float().mean()) > 0.5


@pytest.mark.parametrize("scene", [opened(ball(3, 10)), forward()], ids=["open", "ndc"])
def test_proposals_cover_each_ray_from_near_to_far(scene):
    method = built(scene, replace(INSTANT, num_samples=9))
    assert isinstance(method.sampler, ProposalSampler)
    rays = scene.rays(1)
    for source in (None, rng()):
        packed = method.sampler(rays, method.space, method.density, source).packed
        t0, t1 = packed.t0.view(-1, 9), packed.t1.view(-1, 9)
        assert torch.equal(t0[:, 1:], t1[:, :-1])
        torch.testing.assert_close(t0[:, 0], rays.near)
        torch.testing.assert_close(t1[:, -1], rays.far, rtol=1e-3, atol=0)
        assert bool((t1 >= t0).all())


@pytest.mark.parametrize("sampling", ["occupancy", "proposals"])
def test_rays_of_open_space_end_where_the_sky_is_whatever_their_bounds(sampling):
    scene = opened(ball(3, 10))
    near_by, rays = replace(scene, far=torch.full((3,), 5.0)), scene.rays(1)
    method = built(near_by, replace(INSTANT, sampling=sampling))
    for context in (RenderContext(WHITE), TrainingContext(WHITE, 0, rng())):
        found, expected = (method.sample_rays(each, context).packed for each in (near_by.rays(1), rays))
        if not isinstance(context, TrainingContext):
            assert torch.equal(found.t1, expected.t1)
        assert float(found.t1.max()) > 50
    bounded = replace(near_by, unbounded=False)
    assert float(built(bounded).sample_rays(bounded.rays(1), RenderContext(WHITE)).packed.t1.max()) < 10


def test_either_way_to_sample_serves_any_scene():
    for scene in (ball(3, 10), opened(ball(3, 10))):
        for sampling in ("occupancy", "proposals"):
            method = built(scene, replace(INSTANT, sampling=sampling))
            batch = sample_batch(scene, 50, rng())
            losses = method.losses(method(batch.rays, TrainingContext(batch.background, 0, rng())), batch)
            assert set(losses) == ({"rgb"} if sampling == "occupancy" else {"rgb", "proposal", "distortion"})


def test_penalties_belong_to_the_training_alone_and_know_their_price():
    method = built(opened(ball(3, 10)))
    rays = opened(ball(3, 10)).rays(0)
    assert method(rays, RenderContext(WHITE)).penalties == {}
    sampled = method.sampler(rays, method.space, method.density, rng())
    weights = torch.full((len(sampled.packed),), 0.01)
    cheap, dear = (sampled.penalties(weights, price)["distortion"] for price in (1.0, 3.0))
    torch.testing.assert_close(dear, 3 * cheap)
    assert RaySamples(sampled.packed).penalties(weights, 1.0) == {}


def test_gradients_shrink_towards_an_open_camera_and_values_do_not():
    values = torch.tensor([2.0, 3.0, 4.0], requires_grad=True)
    out = scale_gradients(values, torch.tensor([0.1, 0.5, 7.0]))
    torch.testing.assert_close(out, values)
    out.sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([0.01, 0.25, 1.0]))
    assert scale_gradients(torch.zeros(0, 3), torch.zeros(0, 1)).shape == (0, 3)


@torch.no_grad()
def test_a_trace_of_matter_at_the_far_end_hardly_moves_the_depth(monkeypatch):
    scene = opened(ball(3, 10))
    method = built(scene)
    rays = scene.rays(0)[slice(0, 1)]
    packed = pack_intervals(torch.tensor([[0.9, 1.1, 90.0, 91.0]]))
    optical_depth = torch.tensor([4.0, 0.0, 100.0]) / packed.lengths(rays)
    monkeypatch.setattr(method.sampler, "forward", lambda *_: RaySamples(packed))
    monkeypatch.setattr(method, "query_samples", lambda *_: (optical_depth, torch.zeros(3, 3)))
    assert float(method(rays, RenderContext(WHITE)).depth) == pytest.approx(1, abs=0.05)


def test_matter_behind_proposals_is_where_two_photographs_look():
    scene = opened(ball(5, 10))
    method = built(scene)
    cells = torch.randint(16, 48, (300, 3), generator=torch.Generator().manual_seed(0))  # the box is the inner half
    midpoints = method.space.from_unit_cube((cells + 0.5) / 64)
    xy, depth = scene.cameras.project(midpoints)
    looks = ((depth > 0) & (xy >= 0).all(-1) & (xy < 10).all(-1)).sum(0)
    assert {1, 2, 3} < set(looks.tolist())
    assert torch.equal(method.density(midpoints) > 0, looks >= 2)
    assert float(method.density(torch.tensor([[50.0, 60.0, 70.0]]))) > 0
    alone = built(scene.select([0]))  # a single image has only its own word
    assert float(alone.density(torch.zeros(1, 3))) > 0


@torch.no_grad()
def test_nothing_is_expected_before_the_near_of_any_photograph():
    """The second and third image begin nearer, and the first looks through what they show there."""
    scene = replace(opened(ball(1, 10)).select([0, 0, 0]), near=torch.tensor([3.5, 0.5, 0.5]))
    method = built(scene)
    assert isinstance(method.sampler, ProposalSampler)
    rays = scene.rays(1)
    t = torch.linspace(3.0, 4.0, 101).repeat(len(rays), 1)
    weights, middle = method.sampler.weights(t, rays, method.space), t[:, :-1] + 0.005
    points = rays.origins[:, None] + rays.directions[:, None] * middle[..., None]
    assert torch.equal(weights > 0, method.density(points.view(-1, 3)).view(weights.shape) > 0)
    in_box = (points.abs() < 0.95).all(-1)
    assert not bool((weights[in_box & (middle < 3.4)] > 0).any())
    assert bool((weights[in_box & (middle > 3.6)] > 0).all())


def test_even_packing_lists_the_intervals_ray_by_ray():
    packed = pack_intervals(torch.tensor([[0.0, 1.0, 3.0], [2.0, 2.5, 4.0]]))
    assert packed.t0.tolist() == [0, 1, 2, 2.5]
    assert packed.t1.tolist() == [1, 3, 2.5, 4]
    assert packed.ray.tolist() == [0, 0, 1, 1]
    assert packed.offsets.tolist() == [0, 2, 4]


@torch.no_grad()
def test_a_saved_state_gives_the_same_image():
    scene = ball(3, 10)
    method = trained(scene, 5)
    other = method.settings.build(scene.without_images())
    other.load_state_dict(method.state_dict())
    first, second = (m(scene.rays(0), RenderContext(WHITE)) for m in (method, other))
    assert torch.equal(first.rgb, second.rgb)
    assert torch.equal(first.depth, second.depth)
    assert other.rays_per_step() == method.rays_per_step()


def test_rays_follow_the_samples_that_they_bring():
    method = built(ball(3, 10), replace(INSTANT, samples_per_step=1000))
    for _ in range(60):
        rays = method.rays_per_step()
        method.after_step(0, rays, rays * 5)
    assert abs(method.rays_per_step() - 200) <= 2
    for samples, limit in ((10**9, 64), (0, MAX_RAYS)):
        for _ in range(60):
            method.after_step(0, method.rays_per_step(), samples)
        assert abs(method.rays_per_step() - limit) <= 1


def test_occupancy_is_looked_at_every_so_many_steps(monkeypatch):
    method, looks = built(ball(3, 10)), []
    assert isinstance(method.sampler, OccupancySampler)
    monkeypatch.setattr(
        method.sampler.occupancy, "update", lambda *_, everywhere, cells: looks.append((everywhere, cells))
    )
    for step in (0, 1, 15, 16, 240, 255, 256, 272):
        method.before_step(step, rng())
    assert looks == [(True, 128), (True, 128), (True, 128), (False, 128), (False, 128)]


def test_choices_that_follow_from_the_data_are_kept():
    finest = built(ball(3, 10), replace(INSTANT, max_resolution=0)).settings.max_resolution
    assert finest > built(ball(3, 5), replace(INSTANT, max_resolution=0)).settings.max_resolution > 1
    assert built(ball(3, 10)).settings == replace(INSTANT, sampling="occupancy")
    assert built(opened(ball(3, 10))).settings == replace(INSTANT, sampling="proposals")
    assert built(forward()).settings == replace(INSTANT, sampling="proposals")


def test_density_is_bounded_and_starts_thin():
    for scene, optical_depth in ((ball(3, 10), 0.1), (opened(ball(3, 10)), 0.01)):
        method = built(scene)
        start = method.to_density(torch.zeros(1), MIDDLE[:1]) * method.step
        assert float(start) == pytest.approx(optical_depth)
        ends = method.to_density(torch.tensor([-1e30, 1e30]), MIDDLE)
        assert float(ends[0]) == 0
        assert 0 < float(ends[1]) < 1e12


@pytest.mark.parametrize("rows", [0, 1, ROUND - 1, ROUND, ROUND + 1])
def test_rows_are_padded_with_zeros(rows):
    filled = pad_rows(torch.ones(rows, 3))
    assert len(filled) % ROUND == 0
    assert ROUND <= len(filled) < rows + ROUND + 1
    assert float(filled.sum()) == 3 * rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_levels": 0}, "num_levels: found 0"),
        ({"num_proposal_samples": (9, 0)}, "num_proposal_samples: found 0"),
        ({"step_size": 0.0}, "step_size: found 0"),
        ({"occupancy_resolution": 3}, "occupancy_resolution: found 3"),
    ],
)
def test_settings_that_cannot_work_are_refused(change, message):
    with pytest.raises(DataError, match=message):
        Instant(**change)


def test_nothing_is_inside_where_no_ray_is_looked_at():
    method = built(ball(3, 10))
    middle = method.box.mean(0, keepdim=True)
    assert float(method.density(middle)) > 0
    method.sampler.occupancy.occupied.fill_(False)
    assert float(method.density(middle)) == 0
    assert float(method.query_density(middle)) > 0


def at_two_sizes(n: int = 8) -> Scene:
    """The ball at 24 and, by exact means, at 6 pixels of width; images of both sizes count the same."""
    large = ball(n, 24)
    assert large.images is not None
    fine = large.images.pixels.view(n, 24, 24, 4).float()
    rgb, alpha = fine[..., :3] * fine[..., 3:] / 255, fine[..., 3:]
    rgb, alpha = (part.view(n, 6, 4, 6, 4, -1).mean((2, 4)) for part in (rgb, alpha))
    coarse = torch.cat([rgb * 255 / alpha.clamp_min(1), alpha], -1).round().clamp(0, 255).to(torch.uint8)
    cameras, small = large.cameras, large.cameras.resized(1 / 4)
    both = {name: torch.cat([getattr(cameras, name), getattr(small, name)]) for name in CAMERA_PARTS}
    pixels = torch.cat([large.images.pixels, coarse.view(-1, 4)])
    offsets = torch.cat([torch.arange(n) * 576, n * 576 + torch.arange(n + 1) * 36])
    return replace(
        large,
        cameras=replace(cameras, **both),
        names=large.names * 2,
        near=large.near.repeat(2),
        far=large.far.repeat(2),
        images=Images(pixels, offsets),
        loss_weight=torch.tensor([1.0, 16.0]).repeat_interleave(n),
    )


CAMERA_PARTS = ("c2w", "focal", "center", "size", "distortion")


@torch.no_grad()
def test_small_images_are_seen_best_through_pixels_of_their_own_width():
    scene, errors = at_two_sizes(), {}
    method = trained(scene, 150)
    truth = torch.cat([scene.ground_truth(index).reshape(-1, 3) for index in range(8, 16)])
    for width in (1.0, 0.25):  # a quarter is that of the large images
        views = [scene.rays(index) for index in range(8, 16)]
        seen = [method(replace(rays, radius=width * rays.radius), RenderContext(WHITE)).rgb for rays in views]
        errors[width] = float((torch.cat(seen) - truth).square().mean())
    assert errors[1.0] < 0.7 * errors[0.25]


@pytest.mark.parametrize("scene", [ball(3, 10), opened(ball(3, 10)), forward()], ids=["bounded", "open", "ndc"])
@torch.no_grad()
def test_a_wider_pixel_sees_another_density_only_with_anti_aliasing(scene):
    points = 0.5 * torch.rand(50, 3)
    for on in (True, False):
        method = built(scene, replace(INSTANT, anti_alias=on))
        method.grid.table.uniform_(-1, 1)
        sharp, wide = (method.query_density(points, torch.full((50,), width)) for width in (1e-4, 1.0))
        assert torch.equal(sharp, wide) != on
        own = method.query_density(points, torch.full((50,), method.pixel))
        assert torch.equal(method.query_density(points), own)
        rays = scene.rays(0)
        wider = replace(rays, radius=30 * rays.radius)
        same = torch.equal(method(rays, RenderContext(WHITE)).rgb, method(wider, RenderContext(WHITE)).rgb)
        assert same != on
