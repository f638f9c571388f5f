"""Reptile and MAML on functions whose answer is known, and through every method."""

from dataclasses import fields, replace

import pytest
import torch
from torch.func import functional_call

from lumifield.data.scene import Batch, sample_batch
from lumifield.geometry.rays import Rays
from lumifield.meta import InnerLoop
from lumifield.meta.inner_loop import (
    MethodObjective,
    adapt_clones,
    adaptation_objective,
    clone_for_scene,
    initial_parameters,
)
from lumifield.meta.outer_loop import apply_outer_gradient, gradient_descent, maml, reptile
from lumifield.methods import method_name
from lumifield.optim import Optimizer
from lumifield.optim.optimizers import build_optimizer
from lumifield.runtime.rng import Rng
from scenes import NERF, SIMPLE_NERF, SMALL, bounded

PLAIN = Optimizer(kind="sgd", lr=1.0, momentum=0.0)
ONE_STEP = InnerLoop(steps=1, batch_size=16, optimizer=Optimizer(kind="sgd", lr=0.1, momentum=0.0))


def rng(seed=0):
    return Rng(torch.Generator().manual_seed(seed))


def built(settings, seed=0):
    torch.manual_seed(seed)
    return settings.build(bounded())


def outer(start, settings=PLAIN):
    return build_optimizer(settings, [{"params": list(start.values())}])


def leaf(*numbers):
    return {"a": torch.tensor(numbers, dtype=torch.float64, requires_grad=True)}


def test_reptile_goes_its_share_of_the_way_to_the_mean_of_the_copies():
    start, goals = leaf(0.0, 4.0), [torch.tensor([2.0, 2.0]), torch.tensor([4.0, 6.0])]
    reptile(start, goals, lambda goal: [{"a": goal}], outer(start, replace(PLAIN, lr=0.5)), tasks=2)
    assert start["a"].tolist() == [1.5, 4.0]


def test_the_first_step_of_adam_is_its_rate_in_the_direction_of_the_copies():
    start = leaf(0.0, 4.0, 1.0)
    optimizer = outer(start, Optimizer(kind="adam", lr=0.01))
    reptile(start, [0], lambda _: [{"a": torch.tensor([5.0, 3.9, 1.0])}], optimizer, tasks=1)
    torch.testing.assert_close(start["a"].detach(), torch.tensor([0.01, 3.99, 1.0]).double(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SMALL)
def test_one_plain_outer_step_of_one_inner_step_is_that_step(name):
    start = built(SMALL[name])
    copy, source = clone_for_scene(start, bounded()), rng(3)
    copy.train()
    copy.before_step(0, source)
    batch = sample_batch(bounded(), ONE_STEP.batch_size, source, patch_size=copy.traits.patch_size)
    MethodObjective(copy)(batch, source).backward()
    groups = {id(p): group.get("lr_factor", 1.0) for group in copy.param_groups() for p in group["params"]}
    expected = {
        key: value.detach() - 0.1 * groups[id(value)] * (0 if value.grad is None else value.grad)
        for key, value in initial_parameters(copy).items()
    }
    parameters = initial_parameters(start)
    reptile(
        parameters,
        [bounded()],
        lambda scene: adapt_clones(start, [scene], ONE_STEP, rng(3), lambda _: None),
        outer(parameters),
        tasks=1,
    )
    assert any(not torch.equal(value, built(SMALL[name]).get_parameter(key)) for key, value in parameters.items())
    for key, value in parameters.items():
        torch.testing.assert_close(value.detach(), expected[key], rtol=1e-5, atol=1e-6)


def test_no_inner_steps_leave_the_start():
    start = built(SIMPLE_NERF)
    parameters = initial_parameters(start)
    none = replace(ONE_STEP, steps=0)
    reptile(
        parameters,
        [bounded()],
        lambda scene: adapt_clones(start, [scene], none, rng(), lambda _: None),
        outer(parameters),
        tasks=1,
    )
    assert all(torch.equal(value, built(SIMPLE_NERF).get_parameter(key)) for key, value in parameters.items())


def wave(parameters, shift):
    return (torch.sin(3 * parameters["a"] + shift) * parameters["a"]).sum()


def finite_difference(function, at, step=1e-6):
    slopes = []
    for index in range(len(at)):
        aside = torch.zeros_like(at)
        aside[index] = step
        slopes.append(float((function(at + aside) - function(at - aside)) / (2 * step)))
    return torch.tensor(slopes, dtype=at.dtype)


def after(parameters, second_order):
    moved = gradient_descent(wave, parameters, [0.1, 0.7, 1.3], 0.2, second_order=second_order)
    return wave(moved, 2.0)


def test_second_order_gradients_equal_finite_differences():
    start = leaf(0.3, -0.8, 1.7)
    (found,) = torch.autograd.grad(after(start, True), start.values())
    expected = finite_difference(
        lambda at: after({"a": at.clone().requires_grad_()}, False).detach(), start["a"].detach()
    )
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_first_order_gradients_are_those_at_the_adapted_parameters():
    start = leaf(0.3, -0.8, 1.7)
    (found,) = torch.autograd.grad(after(start, False), start.values())
    moved = gradient_descent(wave, start, [0.1, 0.7, 1.3], 0.2, second_order=False)["a"].detach().requires_grad_()
    (expected,) = torch.autograd.grad(wave({"a": moved}, 2.0), moved)
    torch.testing.assert_close(found, expected)
    (second,) = torch.autograd.grad(after(start, True), start.values())
    assert float((found - second).abs().max()) > 0.1


def test_maml_steps_along_the_mean_gradient_over_its_tasks():
    start = leaf(0.3, -0.8)
    before = start["a"].detach().clone()
    gradients = [torch.autograd.grad(wave(start, shift), start["a"])[0] for shift in (0.0, 1.0)]
    maml(start, [0.0, 1.0], wave, outer(start), tasks=2)
    torch.testing.assert_close(start["a"].detach(), before - (gradients[0] + gradients[1]) / 2)


@pytest.mark.parametrize("settings", [SIMPLE_NERF, replace(NERF, num_fine_samples=0)], ids=method_name)
def test_second_order_gradients_of_a_method_equal_finite_differences(settings):
    scene, method = bounded(), built(replace(settings, density_activation="softplus")).double()
    parameters, copy = initial_parameters(method), MethodObjective(method)
    batches = [doubled(sample_batch(scene, 12, rng(seed))) for seed in range(3)]

    def loss(given, batch):
        return functional_call(copy, {f"method.{name}": value for name, value in given.items()}, (batch, rng()))

    def objective_of(given, second_order):
        return loss(gradient_descent(loss, given, batches[:2], 0.05, second_order=second_order), batches[2])

    found = torch.autograd.grad(objective_of(parameters, True), list(parameters.values()), materialize_grads=True)
    generator = torch.Generator().manual_seed(0)
    aside = [torch.randn(value.shape, generator=generator, dtype=value.dtype) for value in parameters.values()]
    slope = sum(float((gradient * a).sum()) for gradient, a in zip(found, aside, strict=True))
    ends = []
    for step in (1e-6, -1e-6):
        moved = {
            name: (value.detach() + step * a).requires_grad_()
            for (name, value), a in zip(parameters.items(), aside, strict=True)
        }
        ends.append(float(objective_of(moved, False).detach()))
    assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4)


def doubled(batch):
    """The same rays in double precision."""
    rays = {f.name: getattr(batch.rays, f.name) for f in fields(Rays)}
    rays = {name: value.double() if value.is_floating_point() else value for name, value in rays.items()}
    return Batch(Rays(**rays), batch.rgb.double(), batch.background.double())


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("second_order", [False, True])
def test_every_method_has_a_maml_gradient(name, second_order):
    start = built(SMALL[name])
    loop = replace(ONE_STEP, steps=2)
    value = adaptation_objective(start, bounded(), loop, rng(), second_order=second_order)
    gradients = torch.autograd.grad(value, list(initial_parameters(start).values()), materialize_grads=True)
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)
    assert any(float(gradient.abs().max()) > 0 for gradient in gradients)


def test_a_step_of_a_share_of_the_tasks_divides_by_all_of_them():
    start = leaf(1.0, 2.0)
    apply_outer_gradient(start, {"a": torch.tensor([3.0, 6.0]).double()}, outer(start), tasks=3)
    assert start["a"].tolist() == [0.0, 0.0]
