import math
from itertools import count

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import sparse

import fog
from lumifield.errors import DataError
from lumifield.export import WebExport
from lumifield.export.baking import (
    REGULARIZATION,
    Baked,
    ConjugateGradients,
    RaySupervision,
    bake_voxels,
    cells_near_surfaces,
    color_matrix,
    fit_colors,
    grid_box,
    render_supervision,
)
from lumifield.export.voxel_grid import VoxelLattice
from lumifield.methods.base import RenderContext

SETTINGS = WebExport(resolution=48, num_rays=10000)


def shown(baked: Baked, scene, index: int) -> torch.Tensor:
    """A view of the voxels over black, by plain sums."""
    rays = scene.rays(index)
    share = color_matrix(baked.voxels, rays, torch.zeros(len(rays)), lambda: None, min_weight=1e-4)
    light = torch.from_numpy(share @ baked.light.flatten(1).numpy()).view(len(rays), 4, 3)
    return torch.einsum("rdc,rd->rc", light, F.pad(rays.viewdirs, (1, 0), value=1.0))


def closeness(baked: Baked, run, index: int) -> float:
    scene = run.scenes["test"]
    with torch.no_grad():
        truth = run.method(scene.rays(index), RenderContext(torch.zeros(3))).rgb
    return -10 * math.log10(float((shown(baked, scene, index) - truth).square().mean()))


@pytest.mark.parametrize(
    ("density", "scene", "min_weight"),
    [(fog.ball, fog.bounded(), 27), (fog.room, fog.unbounded(), 30), (fog.hill, fog.forward_facing(), 30)],
    ids=["bounded", "unbounded", "forward-facing"],
)
def test_voxels_look_like_the_method(tmp_path, density, scene, min_weight):
    run = fog.run(tmp_path, density, scene)
    baked = bake_voxels(SETTINGS, run)
    found = [closeness(baked, run, index) for index in (0, 3)]
    assert min(found) > min_weight, found


def test_what_is_never_seen_is_left_out(tmp_path):
    baked = bake_voxels(SETTINGS, fog.run(tmp_path, fog.ball, fog.bounded()))
    lattice = baked.voxels.lattice
    radius = lattice.corners(baked.voxels.corners).norm(dim=-1)
    length = float(lattice.lengths(torch.zeros(1, 3)))
    assert float(radius.min()) > fog.RADIUS - 6 * length
    assert float(radius.max()) < fog.RADIUS + 6 * length


def test_the_light_holds_the_slopes_of_colors(tmp_path):
    baked = bake_voxels(WebExport(resolution=16, num_rays=30000), fog.run(tmp_path, fog.ball, fog.bounded(16)))
    points = baked.voxels.lattice.corners(baked.voxels.corners)
    surface = (points.norm(dim=-1) - fog.RADIUS).abs() < 0.5 * float(baked.voxels.lattice.lengths(points[:1]))
    slopes = baked.light[1:][surface][:, 1:]
    # A ray of direction d sees 0.15 d more, of which the value takes a part where few directions see a corner.
    assert 0.1 < float(slopes.diagonal(dim1=1, dim2=2).median()) < 0.16
    assert abs(float(slopes[:, 0, 1].median())) < 0.02


def test_the_same_seed_bakes_the_same(tmp_path):
    run = fog.run(tmp_path, fog.ball, fog.bounded(4, (20, 16)))
    small = WebExport(resolution=16, num_rays=2000)
    one, two, other = (
        bake_voxels(small, run),
        bake_voxels(small, run),
        bake_voxels(WebExport(resolution=16, num_rays=2000, seed=1), run),
    )
    assert torch.equal(one.light, two.light)
    assert torch.equal(one.voxels.alpha, two.voxels.alpha)
    assert one.light.shape != other.light.shape or not torch.equal(one.light, other.light)


def test_progress_reaches_its_end(tmp_path):
    told = []
    bake_voxels(
        WebExport(resolution=16, num_rays=1000),
        fog.run(tmp_path, fog.ball, fog.bounded(4)),
        lambda *args: told.append(args),
    )
    assert [done for done, _ in told] == list(range(1, len(told) + 1))
    assert {total for _, total in told} == {len(told)}


@pytest.mark.parametrize("density", [fog.nothing, fog.haze])
def test_an_empty_scene_is_refused(tmp_path, density):
    with pytest.raises(DataError, match=r"scene: found no surface \(all rays are transparent\)"):
        bake_voxels(WebExport(resolution=256, num_rays=500), fog.run(tmp_path, density, fog.bounded(4)))


@pytest.mark.parametrize(
    ("option", "value"), [("resolution", 12), ("resolution", 520), ("resolution", 8), ("num_rays", 0)]
)
def test_settings_out_of_range_are_refused(option, value):
    with pytest.raises(DataError, match=f"{option}: found {value}"):
        WebExport(**{option: value})


def test_rays_come_from_all_cameras_and_the_cube_holds_what_they_meet(tmp_path):
    run = fog.run(tmp_path, fog.ball, fog.bounded(5))
    supervision = render_supervision(run, 3000, fog.rng(), lambda: None)
    assert sorted(set(supervision.rays.image.tolist())) == [0, 1, 2, 3, 4]
    space = grid_box(run.scenes["train"], supervision)
    sides = space.box[1] - space.box[0]
    assert torch.allclose(sides, sides[0])
    assert float(sides[0]) == pytest.approx(2 * fog.RADIUS, rel=0.2)
    cells = cells_near_surfaces(VoxelLattice(space, 16), supervision)
    assert 0 < float(cells.float().mean()) <= 1


def test_conjugate_gradients_solve_what_they_are_given():
    generator = np.random.default_rng(0)
    half = generator.normal(size=(12, 12)).astype(np.float32)
    matrix, right = half @ half.T + 4 * np.eye(12, dtype=np.float32), generator.normal(size=(12, 3)).astype(np.float32)
    found = np.zeros_like(right)
    descent = ConjugateGradients(right.copy(), 1 / np.diag(matrix)[:, None])
    for _ in range(40):
        found += descent.along(lambda direction: matrix @ direction)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), atol=1e-4)
    nought = ConjugateGradients(np.zeros_like(right), np.ones_like(right))
    assert not nought.along(lambda direction: matrix @ direction).any()


def test_light_is_the_least_squares_of_a_small_problem():
    rays = fog.bounded(4, (12, 10)).rays(0)
    n, corners = len(rays), 5
    generator = torch.Generator().manual_seed(3)
    dense = torch.rand(n, corners, generator=generator) / corners
    dense[:, 0] = 0
    rgb = torch.rand(n, 3, generator=generator)
    supervision = RaySupervision(rays, rgb, torch.zeros(n), torch.ones(n))
    steps = count()
    light = fit_colors(sparse.csr_matrix(dense.numpy()), supervision, lambda: next(steps))
    basis = F.pad(rays.viewdirs, (1, 0), value=1.0)
    design = (dense[:, 1:, None] * basis[:, None]).flatten(1).double().numpy()
    mean = (dense.T @ rgb) / (dense.T @ dense.sum(1, keepdim=True)).clamp_min(1e-6)
    start = F.pad(mean[1:, None], (0, 0, 0, 3)).flatten(0, 1).double().numpy()
    pull = np.diag(np.tile(REGULARIZATION.reshape(4, 3)[:, 0], corners - 1)).astype(np.float64)
    best = np.linalg.solve(design.T @ design + pull, design.T @ rgb.double().numpy() + pull @ start)

    def cost(x):
        return ((design @ x - rgb.numpy()) ** 2).sum() + ((x - start) * (pull @ (x - start))).sum()

    found = light[1:].flatten(0, 1).double().numpy()
    assert cost(found) - cost(best) < 1e-3 * (cost(start) - cost(best))
    assert not light[0].any()
    assert next(steps) == 16
