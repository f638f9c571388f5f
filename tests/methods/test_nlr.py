import copy
from dataclasses import replace
from itertools import product

import pytest
import torch

from known_surfaces import Around, TrueBall, built
from lumifield.data.scene import Images, Scene, sample_batch
from lumifield.errors import DataError
from lumifield.geometry.rays import offset_rays
from lumifield.methods import Nlr
from lumifield.methods.base import RenderContext, TrainingContext
from lumifield.methods.nlr.distance_grid import sample_on_grid
from lumifield.methods.nlr.method import NlrMethod
from lumifield.rendering.view import render_view
from lumifield.runtime.rng import Rng
from scenes import NLR, RADIUS, ball, forward, photograph, unbounded

WHITE = torch.ones(3)
CPU = torch.device("cpu")


def rng(seed: int = 0) -> Rng:
    return Rng(torch.Generator().manual_seed(seed))


def stepped(method: NlrMethod, scene: Scene, step: int, source: Rng):
    method.before_step(step, source)
    batch = sample_batch(scene, method.rays_per_step(), source, patch_size=method.traits.patch_size)
    rendered = method(batch.rays, TrainingContext(batch.background, step, source, patch_size=batch.patch_size))
    return rendered, method.losses(rendered, batch), batch


def trained(settings: Nlr, scene: Scene, steps: int) -> NlrMethod:
    method, source = built(settings, scene), rng(1)
    optimizer = torch.optim.Adam([{**group, "lr": 5e-4 * group.get("lr_factor", 1)} for group in method.param_groups()])
    for step in range(steps):
        _, losses, _ = stepped(method, scene, step, source)
        optimizer.zero_grad()
        torch.stack(list(losses.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
    return method.eval()


def unequal() -> Scene:
    """Images of three sizes."""
    scenes = [ball(4, size).select([row]) for row, size in enumerate((12, 16, 9, 14))]
    cameras = {
        name: torch.cat([getattr(one.cameras, name) for one in scenes])
        for name in ("c2w", "focal", "center", "size", "distortion")
    }
    pixels = torch.cat([one.images.pixels for one in scenes if one.images])
    ends = torch.tensor([0, 144, 256, 81, 196]).cumsum(0)
    whole = ball(4, 12)
    return replace(whole, cameras=replace(whole.cameras, **cameras), images=Images(pixels, ends))


def test_views_between_the_photographs_are_learned_with_their_silhouettes():
    whole = ball(16, 24)
    scene, held_out = whole.select(list(range(0, 16, 2))), whole.select([5])
    settings = replace(
        NLR,
        sdf_hidden_dim=32,
        sdf_num_layers=2,
        patch_size=24,
        num_mask_rays=256,
        num_eikonal_points=256,
        shape_learning_rate_factor=2.0,
    )
    method = trained(settings, scene, 80)
    view = render_view(method, held_out, 0, device=CPU)
    truth = photograph(held_out, 0).float() / 255
    solid = truth[..., 3] > 0.5
    assert float((view.hit_mask & solid).sum() / (view.hit_mask | solid).sum()) > 0.9
    error = (view.rgb - truth[..., :3])[view.hit_mask & solid].square().mean()
    assert float(-10 * error.log10()) > 20
    rays = held_out.rays(0)
    expected = -(rays.origins * rays.directions).sum(-1) - RADIUS
    middle = 12 * 24 + 12
    assert float(view.depth.flatten()[middle]) == pytest.approx(float(expected[middle]), abs=0.1)


@pytest.mark.parametrize(
    ("features", "blending"), list(product(["both", "learned", "rgb"], ["learned", "lumigraph", "epipolar", "mean"]))
)
@pytest.mark.parametrize(("sources", "choice"), [(-1, "random"), (2, "random"), (2, "nearest")])
def test_every_way_to_blend_trains(features, blending, sources, choice):
    scene = ball(32, 12).select(list(range(6)))  # near enough to each other to see the same
    settings = replace(
        NLR, features=features, blending=blending, num_source_views=sources, source_selection=choice, num_joint_steps=1
    )
    method, source = built(settings, scene), rng()
    learned = {"encoder": features != "rgb", "weights": blending == "learned", "decoder": features != "rgb"}
    nothing_else = features == "rgb" and blending != "learned"
    for step in range(3):
        method.zero_grad()
        _, losses, _ = stepped(method, scene, step, source)
        torch.stack(list(losses.values())).sum().backward()
        if method.appearance_net.decoder is not None:  # a fresh one passes no gradient on
            torch.nn.init.constant_(method.appearance_net.decoder.out.weight, 0.1)
        assert (set(losses) == {"rgb"}) == (not nothing_else and step > 0)
    for part, there in learned.items():
        module = getattr(method.appearance_net, part)
        assert (module is not None) == there
        if module is not None:
            assert any(p.grad is not None and float(p.grad.abs().max()) > 0 for p in module.parameters())
    assert all((p.grad is not None) == nothing_else for p in method.sdf.parameters())
    assert all(bool(p.grad.isfinite().all()) for p in method.parameters() if p.grad is not None)


def test_steps_of_appearance_leave_the_shape_alone_and_steps_of_shape_move_it():
    scene, settings = ball(4, 12), replace(NLR, num_joint_steps=2, shape_update_interval=4)
    method, source = built(settings, scene), rng()
    for step, shape in enumerate([True, True, False, False, True, False]):
        method.zero_grad()
        _, losses, _ = stepped(method, scene, step, source)
        torch.stack(list(losses.values())).sum().backward()
        assert (set(losses) == {"rgb", "eikonal", "silhouette"}) == shape
        assert all((p.grad is not None) == shape for p in method.sdf.parameters())


def test_the_first_steps_carve_by_silhouettes_alone():
    scene, settings = ball(4, 12), replace(NLR, num_mask_only_steps=2, num_joint_steps=1, shape_update_interval=9)
    method, source = built(settings, scene), rng()
    for step, (shape, colors) in enumerate([(True, False), (True, False), (True, True), (False, True)]):
        method.zero_grad()
        rendered, losses, _ = stepped(method, scene, step, source)
        torch.stack(list(losses.values())).sum().backward()
        assert bool(rendered.opacity.any()) == colors
        assert all((p.grad is not None) == shape for p in method.sdf.parameters())
        offset_rays = [p for p in method.appearance_net.parameters() if p.grad is not None and bool(p.grad.any())]
        assert bool(offset_rays) == colors
    assert not built(replace(settings, frozen_parts=("shape",)), scene).is_mask_only_step(0)


def test_colors_alone_move_the_shape():
    scene = ball(4, 12)
    method, source = built(NLR, scene), rng()
    rendered, losses, _ = stepped(method, scene, 0, source)
    losses["rgb"].backward()
    assert rendered.opacity.sum() > 0
    assert any(float(p.grad.abs().max()) > 0 for p in method.sdf.parameters())


@torch.no_grad()
def test_while_learning_no_ray_sees_its_own_photograph():
    scene = ball(4, 12)
    method, source = built(), rng()
    method.before_step(0, source)
    batch = sample_batch(scene, 64, source, patch_size=8)
    rendered = method(batch.rays, TrainingContext(WHITE, 0, rng(5), patch_size=batch.patch_size)).rgb
    changing = []
    for index in range(4):
        changed = copy.deepcopy(method)
        first, last = changed.sources.starts[index : index + 2]
        changed.sources.pixels[first:last, :3] = 255 - changed.sources.pixels[first:last, :3]
        changed.sources.extend()
        again = changed(batch.rays, TrainingContext(WHITE, 0, rng(5), patch_size=batch.patch_size)).rgb
        changing += [] if torch.equal(again, rendered) else [index]
    own = int(batch.rays.image[0])
    # The two cameras at its sides see what it sees, the one across does not.
    assert changing == sorted({(own + 1) % 4, (own + 3) % 4})


@torch.no_grad()
@pytest.mark.parametrize(("blending", "most"), [("mean", 0.06), ("lumigraph", 0.03), ("epipolar", 0.02)])
def test_with_the_true_surface_blended_colors_are_those_of_the_photographs(blending, most):
    whole = ball(16, 64)
    scene, held_out = whole.select(list(range(0, 16, 2))), whole.select([1, 5])
    method = built(replace(NLR, features="rgb", blending=blending, supersampling=1), scene).eval()
    method.sdf = TrueBall(method)
    for index in range(2):
        view, truth = render_view(method, held_out, index, device=CPU), photograph(held_out, index).float() / 255
        solid = truth[..., 3] > 0.5
        assert float((view.hit_mask & solid).sum() / (view.hit_mask | solid).sum()) > 0.99
        seen = solid & view.hit_mask
        seen = -torch.nn.functional.max_pool2d(-seen[None, None].float(), 5, 1, 2)[0, 0] > 0.5  # off the edge
        assert float((view.rgb - truth[..., :3])[seen].abs().max()) < most


@torch.no_grad()
def test_a_pixel_is_the_mean_of_the_rays_through_its_parts():
    scene, coarse, fine = ball(8, 32), ball(16, 32).select([1]), ball(16, 64).select([1])
    views = []
    for side, held_out in ((2, coarse), (1, fine)):
        method = built(replace(NLR, features="rgb", blending="epipolar", supersampling=side), scene).eval()
        method.sdf = TrueBall(method)
        views.append(render_view(method, held_out, 0, device=CPU))
    pixel, parts = views[0], views[1]
    hits = parts.opacity.view(32, 2, 32, 2).sum((1, 3))
    whole = hits == 4
    assert float(whole.sum()) > 100
    assert float(((hits >= 2) != pixel.hit_mask).sum()) <= 4  # a ray that just grazes the ball
    mean = parts.rgb.view(32, 2, 32, 2, 3).mean((1, 3))
    assert float((mean - pixel.rgb)[whole].abs().max()) < 2e-3
    # At an edge only the rays that meet the surface count.
    rim = (hits == 2) & pixel.hit_mask
    met = (parts.rgb * parts.opacity[..., None]).view(32, 2, 32, 2, 3).sum((1, 3)) / 2
    assert float(rim.sum()) > 5
    assert float((met - pixel.rgb)[rim].abs().median()) < 5e-3


@torch.no_grad()
def test_the_order_of_the_sources_does_not_count():
    scene, order = ball(4, 12), [2, 0, 3, 1]
    straight, mixed = built(NLR, scene), built(NLR, scene.select(order))
    parameters = {name: value for name, value in straight.named_parameters()}
    mixed.load_state_dict(mixed.state_dict() | parameters)
    held_out = ball(8, 12).select([3])
    views = [render_view(method.eval(), held_out, 0, device=CPU) for method in (straight, mixed)]
    assert float(views[0].opacity.sum()) > 0
    torch.testing.assert_close(views[0].rgb, views[1].rgb, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_an_image_is_the_same_wherever_in_a_batch_it_stands():
    scene = ball(4, 12)
    method = built().eval()
    torch.nn.init.constant_(method.appearance_net.decoder.out.weight, 0.1)
    rays = [scene.rays(index) for index in range(3)]
    alone = [method(one, RenderContext(WHITE, patch_size=(12, 12))).rgb for one in rays]
    for order in ([0, 1, 2], [2, 0, 1]):
        joined = replace(
            rays[0],
            **{
                name: torch.cat([getattr(rays[index], name) for index in order])
                for name in ("origins", "directions", "viewdirs", "radius", "near", "far", "image", "place")
            },
        )
        together = method(joined, RenderContext(WHITE, patch_size=(12, 12))).rgb.view(3, -1, 3)
        for place, index in enumerate(order):
            torch.testing.assert_close(together[place], alone[index], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_pieces_of_a_source_have_the_features_of_the_whole():
    """The encoder of two stages reaches no further than the margin: what is looked up does not depend on the window."""
    scene = ball(3, 96)
    settings = replace(NLR, num_encoder_stages=1, num_decoder_levels=0)
    method, source = built(settings, scene), rng()
    method.before_step(0, source)
    rays = scene.rays(1)[torch.arange(96 * 40 + 40, 96 * 40 + 56)]
    t = torch.full((16,), 4 - RADIUS)
    points = rays.origins + t[:, None] * rays.directions
    net, sources = method.appearance_net, method.sources
    maps = net.feature_maps(sources)
    for index in (0, 2):
        sight = sources.project_samples(index, points, rays.directions)
        assert sight.seen.any()
        whole, piece = (net.features(index, sight, sources, m) for m in (maps, None))
        torch.testing.assert_close(piece, whole, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_sources_show_what_lies_before_them_in_their_silhouette():
    scene = ball(4, 12)
    sources = built().sources
    camera = scene.cameras
    ahead = camera.positions[0] + (4 - RADIUS) * camera.forward[0]
    beside = ahead + 0.99 * RADIUS * 2 * camera.c2w[0, :, 0]
    behind = camera.positions[0] - camera.forward[0]
    points = torch.stack([ahead, beside, behind, ahead + 0.5 * camera.forward[0]])
    directions = camera.forward[0].expand(4, 3)
    sight = sources.project_samples(0, points, directions)
    assert sight.seen.tolist() == [True, False, False, True]
    assert float(sight.cosine[0]) == pytest.approx(1, abs=1e-5)


@torch.no_grad()
def test_what_lies_about_a_silhouette_does_not_reach_the_colors_within():
    scene = ball(4, 24)
    assert scene.images is not None
    pixels = scene.images.pixels
    solid, sights = photograph(scene, 0)[..., 3].flatten() >= 128, []
    for shade in (0, 255):
        around = torch.where(pixels[:, 3:] >= 128, pixels, torch.tensor([shade, shade, shade, 0]).byte())
        one = replace(scene, images=replace(scene.images, pixels=around))
        rays = offset_rays(one.rays(0), (24, 24), (0.4, -0.3))  # between the pixels' middles
        sights.append(built(NLR, one).sources.project_samples(0, rays.origins + 4 * rays.directions, rays.directions))
    dark, bright = sights
    assert torch.equal(dark.seen, solid)
    assert torch.equal(dark.rgb[solid], bright.rgb[solid])


@torch.no_grad()
def test_a_source_does_not_see_what_the_surface_hides_from_it():
    scene = ball(4, 12)
    method = built(NLR, scene)
    method.sdf = TrueBall(method)
    camera = scene.cameras
    away = torch.nn.functional.normalize(torch.randn(200, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    points, whole = RADIUS * away, torch.ones(200, dtype=torch.bool)
    sights = {index: method.sources.project_samples(index, points, -away) for index in (0, 2)}
    sights = {index: replace(sight, seen=whole) for index, sight in sights.items()}
    for slack in (0.01, 0.1):
        found = method.remove_occluded(sights, (points - method.center) / method.radius, method.sdf, slack)
        for index, sight in found.items():
            towards = torch.nn.functional.normalize(camera.positions[index] - points, dim=-1)
            slope = (towards * away).sum(-1)
            # A ray that sinks in comes out again after twice its sine.
            assert sight.seen[slope > 0.01].all()
            assert not sight.seen[2 * -slope * RADIUS > 1.1 * slack * float(method.radius)].any()


def test_photographs_of_unequal_sizes_train_and_are_rendered():
    scene = unequal()
    method = trained(replace(NLR, num_joint_steps=1, shape_update_interval=2), scene, 4)
    for index in range(4):
        view = render_view(method, scene, index, device=CPU)
        width, height = scene.size(index)
        assert view.rgb.shape == (height, width, 3)
        assert view.rgb.isfinite().all()
        image = method.sources.image(index)
        assert torch.equal((image[:3].permute(1, 2, 0) * 255).round().byte(), photograph(scene, index)[..., :3])


@torch.no_grad()
def test_channels_show_what_is_blended_and_of_which_sources():
    between = ball(8, 12).select([1])
    method = built().eval()
    torch.nn.init.constant_(method.appearance_net.decoder.out.bias, 0.2)
    view = render_view(method, between, 0, device=CPU, channels=("blended", "sources"))
    solid = view.hit_mask
    torch.testing.assert_close(view.rgb[solid], (view.channels["blended"][solid] + 0.2).clamp(0, 1))
    assert (view.channels["blended"][~solid] == 1).all()
    hues = view.channels["sources"][solid]
    assert ((hues >= 0) & (hues <= 1 + 1e-5)).all()
    assert float(hues.std(0).max()) > 0.01


def test_silhouettes_sharpen_and_hidden_points_are_told_more_finely():
    settings = replace(
        NLR,
        mask_sharpness=50.0,
        mask_sharpness_interval=10,
        num_mask_sharpness_doublings=3,
        visibility_tolerance=0.04,
        min_visibility_tolerance=0.01,
    )
    method = built(replace(settings, visibility_tolerance_interval=10))
    assert [method.sharpness(step) for step in (0, 9, 10, 25, 35, 1000)] == [50, 50, 100, 200, 400, 400]
    assert [method.visibility_tolerance(step) for step in (0, 10, 20, 30, 500)] == [0.04, 0.02, 0.01, 0.01, 0.01]


@pytest.mark.parametrize(("share", "grows"), [(0.98, True), (1.02, False)])
def test_silhouettes_lead_to_the_true_radius_from_both_sides(share, grows):
    method = built(replace(NLR, num_mask_rays=16384, mask_sharpness=50.0), ball(8, 48))
    radius = torch.nn.Parameter(torch.tensor(share * RADIUS))
    method.sdf = Around(method, radius)
    method.distances.copy_(sample_on_grid(method.sdf, len(method.distances), CPU))
    method.penalties(TrainingContext(WHITE, 0, rng()))["silhouette"].backward()
    assert radius.grad is not None
    assert bool(radius.grad < 0) == grows


def test_frozen_parts_stay_and_only_started_parts_are_carried_over():
    scene = ball(32, 12).select(list(range(6)))
    settings = replace(NLR, frozen_parts=("encoder", "shape"), init_parts=("decoder", "blending"), num_joint_steps=1)
    method = trained(settings, scene, 3)
    fresh = built(settings, scene)
    for name, parameter in method.named_parameters():
        still = name.startswith(("sdf.", "appearance_net.encoder."))
        assert torch.equal(parameter, dict(fresh.named_parameters())[name]) == still or parameter.numel() < 2, name
    names = method.adaptable_parameters()
    assert names
    assert all(name.startswith(("appearance_net.decoder.", "appearance_net.weights.")) for name in names)
    assert set(built().adaptable_parameters()) == {name for name, _ in built().named_parameters()}


@torch.no_grad()
def test_distances_are_in_scene_units_and_normals_point_outwards():
    method = built()
    away = torch.nn.functional.normalize(torch.randn(50, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    radius = float(method.radius)
    for share in (0.3, 0.5, 0.8):
        points = method.center + share * radius * away
        torch.testing.assert_close(
            method.signed_distance(points), torch.full((50,), (share - 0.5) * radius), rtol=0, atol=0.1 * radius
        )
    assert method.traits.has_signed_distance
    normals = method.normals(method.center + 0.5 * radius * away, torch.full((50,), 0.01), None)
    assert ((normals * away).sum(-1) > 0.8).all()


def test_open_scenes_have_a_backdrop_that_learns():
    scene = unbounded()
    method = built(NLR, scene)
    rendered, losses, _ = stepped(method, scene, 0, rng())
    assert set(losses) == {"rgb", "eikonal", "silhouette"}
    torch.stack(list(losses.values())).sum().backward()
    assert method.background_model is not None
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in method.background_model.parameters())
    assert (rendered.opacity == 1).all()


def test_what_cannot_be_learned_is_said():
    with pytest.raises(DataError, match=r"method nlr: space: found normalized device coordinates"):
        built(NLR, forward())
    with pytest.raises(DataError, match=r"method nlr: source views: found 1 image"):
        built(NLR, ball(4, 12).select([1]))
    for wrong, said in (
        ({"num_source_views": 0}, "num_source_views: found 0"),
        ({"num_encoder_stages": 6}, "num_encoder_stages: found 6"),
        ({"sdf_skip_layers": (9,)}, "sdf_skip_layers: found"),
        ({"sdf_init": "geometric"}, "sdf_activation: found 'sine'"),
        ({"frozen_parts": ("shape", "encoder", "decoder", "blending")}, "frozen_parts: found"),
        ({"features": "rgb", "frozen_parts": ("encoder",)}, "frozen_parts: found 'encoder'"),
        ({"blending": "mean", "frozen_parts": ("blending",)}, "frozen_parts: found 'blending'"),
        ({"patch_size": 1}, "patch_size: found 1"),
    ):
        with pytest.raises(DataError, match=said):
            replace(NLR, **wrong)
