import math
from itertools import count

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import sparse

import fog
from lumifield.export import WebExport
from lumifield.export.voxel_baking import (
    NUM_ITERATIONS,
    REGULARIZATION,
    BakedVoxels,
    ConjugateGradients,
    RaySupervision,
    bake_voxels,
    build_color_matrix,
    find_cells_near_surfaces,
    fit_colors,
    fit_grid_box,
    render_supervision,
)
from lumifield.export.voxel_grid import VoxelGrid
from lumifield.methods.base import RenderContext
from refusals import refuses

SETTINGS = WebExport(resolution=48, num_rays=10000)


def render_voxels(baked: BakedVoxels, scene, index: int) -> torch.Tensor:
    """A view of the voxels over black, by explicit sums."""
    rays = scene.rays(index)
    matrix = build_color_matrix(baked.voxels, rays, torch.zeros(len(rays)), lambda: None, min_weight=1e-4)
    coefficients = torch.from_numpy(matrix @ baked.coefficients.flatten(1).numpy()).view(len(rays), 4, 3)
    return torch.einsum("rdc,rd->rc", coefficients, F.pad(rays.viewdirs, (1, 0), value=1.0))


def psnr_against_method(baked: BakedVoxels, run, index: int) -> float:
    scene = run.scenes["test"]
    with torch.no_grad():
        expected = run.method(scene.rays(index), RenderContext(torch.zeros(3))).rgb
    return -10 * math.log10(float((render_voxels(baked, scene, index) - expected).square().mean()))


@pytest.mark.parametrize(
    ("density", "scene", "min_psnr"),
    [(fog.ball, fog.bounded(), 27), (fog.room, fog.unbounded(), 30), (fog.hill, fog.forward_facing(), 30)],
    ids=["bounded", "unbounded", "forward-facing"],
)
def test_voxels_render_like_the_method(tmp_path, density, scene, min_psnr):
    run = fog.run(tmp_path, density, scene)
    baked = bake_voxels(SETTINGS, run)
    scores = [psnr_against_method(baked, run, index) for index in (0, 3)]
    assert min(scores) > min_psnr, scores


def test_occluded_voxels_are_removed(tmp_path):
    baked = bake_voxels(SETTINGS, fog.run(tmp_path, fog.ball, fog.bounded()))
    grid = baked.voxels.grid
    radius = grid.corner_positions(baked.voxels.corners).norm(dim=-1)
    cell_size = float(grid.cell_sizes(torch.zeros(1, 3)))
    assert float(radius.min()) > fog.RADIUS - 6 * cell_size
    assert float(radius.max()) < fog.RADIUS + 6 * cell_size


def test_coefficients_hold_the_derivatives_of_colors(tmp_path):
    baked = bake_voxels(WebExport(resolution=16, num_rays=30000), fog.run(tmp_path, fog.ball, fog.bounded(16)))
    grid = baked.voxels.grid
    points = grid.corner_positions(baked.voxels.corners)
    is_surface = (points.norm(dim=-1) - fog.RADIUS).abs() < 0.5 * float(grid.cell_sizes(points[:1]))
    derivatives = baked.coefficients[1:][is_surface][:, 1:]
    # The color of a ray of direction d varies by 0.15 d; the value explains a part where few directions see a corner.
    assert 0.1 < float(derivatives.diagonal(dim1=1, dim2=2).median()) < 0.16
    assert abs(float(derivatives[:, 0, 1].median())) < 0.02


def test_equal_seeds_bake_equal_voxels(tmp_path):
    run = fog.run(tmp_path, fog.ball, fog.bounded(4, (20, 16)))
    one, two, other = (bake_voxels(WebExport(resolution=16, num_rays=2000, seed=seed), run) for seed in (0, 0, 1))
    assert torch.equal(one.coefficients, two.coefficients)
    assert torch.equal(one.voxels.alpha, two.voxels.alpha)
    assert one.coefficients.shape != other.coefficients.shape or not torch.equal(one.coefficients, other.coefficients)


def test_progress_reaches_its_total(tmp_path):
    run = fog.run(tmp_path, fog.ball, fog.bounded(4))
    calls = []
    bake_voxels(WebExport(resolution=16, num_rays=1000), run, lambda *call: calls.append(call))
    assert [completed for completed, _ in calls] == list(range(1, len(calls) + 1))
    assert {total for _, total in calls} == {len(calls)}


@pytest.mark.parametrize("density", [fog.nothing, fog.haze])
def test_a_scene_without_surfaces_is_refused(tmp_path, density):
    with refuses("scene", found="no surface"):
        bake_voxels(WebExport(resolution=256, num_rays=500), fog.run(tmp_path, density, fog.bounded(4)))


@pytest.mark.parametrize(
    ("option", "value"), [("resolution", 12), ("resolution", 520), ("resolution", 8), ("num_rays", 0)]
)
def test_settings_out_of_range_are_refused(option, value):
    with refuses(option, found=str(value)):
        WebExport(**{option: value})


def test_rays_come_from_all_cameras_and_the_cube_encloses_their_surfaces(tmp_path):
    run = fog.run(tmp_path, fog.ball, fog.bounded(5))
    supervision = render_supervision(run, 3000, fog.rng(), lambda: None)
    assert sorted(set(supervision.rays.image.tolist())) == [0, 1, 2, 3, 4]
    scene_box = fit_grid_box(run.scenes["train"], supervision)
    sizes = scene_box.box[1] - scene_box.box[0]
    assert torch.allclose(sizes, sizes[0])
    assert float(sizes[0]) == pytest.approx(2 * fog.RADIUS, rel=0.2)
    cells = find_cells_near_surfaces(VoxelGrid(scene_box, 16), supervision)
    assert 0 < float(cells.float().mean()) <= 1


def test_conjugate_gradients_solve_a_linear_system():
    generator = np.random.default_rng(0)
    factor = generator.normal(size=(12, 12)).astype(np.float32)
    matrix = factor @ factor.T + 4 * np.eye(12, dtype=np.float32)
    right = generator.normal(size=(12, 3)).astype(np.float32)
    found = np.zeros_like(right)
    solver = ConjugateGradients(right.copy(), 1 / np.diag(matrix)[:, None])
    for _ in range(40):
        found += solver.step(lambda direction: matrix @ direction)
    np.testing.assert_allclose(found, np.linalg.solve(matrix, right), atol=1e-4)


def test_conjugate_gradients_do_not_move_from_a_zero_residual():
    solver = ConjugateGradients(np.zeros((12, 3), np.float32), np.ones((12, 3), np.float32))
    assert not solver.step(lambda direction: 4 * direction).any()


def test_colors_are_the_regularized_least_squares_solution():
    rays = fog.bounded(4, (12, 10)).rays(0)
    num_rays, num_corners = len(rays), 5
    generator = torch.Generator().manual_seed(3)
    dense = torch.rand(num_rays, num_corners, generator=generator) / num_corners
    dense[:, 0] = 0
    rgb = torch.rand(num_rays, 3, generator=generator)
    supervision = RaySupervision(rays, rgb, torch.zeros(num_rays), torch.ones(num_rays))
    steps = count()
    coefficients = fit_colors(sparse.csr_matrix(dense.numpy()), supervision, lambda: next(steps))
    basis = F.pad(rays.viewdirs, (1, 0), value=1.0)
    design = (dense[:, 1:, None] * basis[:, None]).flatten(1).double().numpy()
    mean = (dense.T @ rgb) / (dense.T @ dense.sum(1, keepdim=True)).clamp_min(1e-6)
    prior = F.pad(mean[1:, None], (0, 0, 0, 3)).flatten(0, 1).double().numpy()
    penalty = np.diag(np.tile(REGULARIZATION.reshape(4, 3)[:, 0], num_corners - 1)).astype(np.float64)
    exact = np.linalg.solve(design.T @ design + penalty, design.T @ rgb.double().numpy() + penalty @ prior)

    def objective(x):
        return ((design @ x - rgb.numpy()) ** 2).sum() + ((x - prior) * (penalty @ (x - prior))).sum()

    found = coefficients[1:].flatten(0, 1).double().numpy()
    assert objective(found) - objective(exact) < 1e-3 * (objective(prior) - objective(exact))
    assert not coefficients[0].any()
    assert next(steps) == NUM_ITERATIONS
