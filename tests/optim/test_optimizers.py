import dataclasses
import itertools
import math

import pytest
import torch

from lumifield.optim import Optimizer, Schedule
from lumifield.optim.optimizers import build_optimizer, learning_rate_factor

KINDS = ["sgd", "adam", "radam", "ranger"]
GRADIENTS = [0.5, -1.0, 0.25, 2.0, -0.5, 1.5, 0.75, -0.25, 0.1, 0.3, -2.0, 1.0, 0.6]


def run(settings: Optimizer, gradients: list[float], start: float = 1.0) -> list[float]:
    parameter = torch.nn.Parameter(torch.tensor([start]))
    optimizer = build_optimizer(settings, [{"params": [parameter]}])
    path = []
    for gradient in gradients:
        optimizer.zero_grad()
        (parameter * gradient).sum().backward()
        optimizer.step()
        path.append(float(parameter.detach()))
    return path


def slow_adam(gradients: list[float], lr: float, b1: float, b2: float, decay: float) -> list[float]:
    w, m, v, path = 1.0, 0.0, 0.0, []
    for t, gradient in enumerate(gradients, 1):
        g = gradient + decay * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        w -= lr * (m / (1 - b1**t)) / (math.sqrt(v / (1 - b2**t)) + 1e-8)
        path.append(w)
    return path


def slow_radam(gradients: list[float], lr: float, b1: float, b2: float, decay: float) -> list[float]:
    """Rectified Adam with decoupled decay, in the letters of Liu et al. 2020."""
    w, m, v, path = 1.0, 0.0, 0.0, []
    limit = 2 / (1 - b2) - 1
    for t, g in enumerate(gradients, 1):
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        rho = limit - 2 * t * b2**t / (1 - b2**t)
        w -= lr * decay * w
        if rho > 5:
            rectified = math.sqrt((1 - b2**t) * (rho - 4) * (rho - 2) * limit / ((limit - 4) * rho * (limit - 2)))
            w -= lr * m / (math.sqrt(v) + 1e-8) * rectified / (1 - b1**t)
        else:
            w -= lr * m / (1 - b1**t)
        path.append(w)
    return path


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_sgd_equals_a_loop(decay: float):
    w, momentum, expected = 1.0, 0.0, []
    for g in GRADIENTS:
        momentum = 0.8 * momentum + g + decay * w
        w -= 0.1 * momentum
        expected.append(w)
    found = run(Optimizer("sgd", lr=0.1, momentum=0.8, weight_decay=decay), GRADIENTS)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_adam_equals_a_loop(decay: float):
    found = run(Optimizer("adam", lr=0.1, weight_decay=decay), GRADIENTS)
    assert found == pytest.approx(slow_adam(GRADIENTS, 0.1, 0.9, 0.999, decay), rel=1e-4)
    found = run(Optimizer("adam", lr=0.1, betas=(0.5, 0.7)), GRADIENTS)
    assert found == pytest.approx(slow_adam(GRADIENTS, 0.1, 0.5, 0.7, 0), rel=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_radam_equals_a_loop_before_and_after_rectification(decay: float):
    found = run(Optimizer("radam", lr=0.1, weight_decay=decay), GRADIENTS)
    assert found == pytest.approx(slow_radam(GRADIENTS, 0.1, 0.9, 0.999, decay), rel=1e-4)


def test_ranger_is_radam_that_looks_ahead():
    found = run(Optimizer("ranger", lr=0.1), GRADIENTS)
    plain = slow_radam(GRADIENTS, 0.1, 0.95, 0.999, 0.0)
    # the moments know the gradients alone, so each look shifts all that follows
    slow, shift, expected = 1.0, 0.0, []
    for t, w in enumerate(plain, 1):
        fast = w + shift
        if t % 6 == 0:
            slow = slow + 0.5 * (fast - slow)
            shift += slow - fast
            fast = slow
        expected.append(fast)
    assert found == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("before", [3, 6, 8])
def test_a_resumed_run_takes_the_same_path(kind, before: int):
    gradients = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))

    def steps(parameter: torch.nn.Parameter, optimizer, some: torch.Tensor) -> None:
        for gradient in some:
            parameter.grad = gradient.clone()
            optimizer.step()

    settings = Optimizer(kind, lr=0.1)
    whole = torch.nn.Parameter(torch.ones(5))
    steps(whole, build_optimizer(settings, [{"params": [whole]}]), gradients)
    first = torch.nn.Parameter(torch.ones(5))
    optimizer = build_optimizer(settings, [{"params": [first]}])
    steps(first, optimizer, gradients[:before])
    second = torch.nn.Parameter(first.detach().clone())
    resumed = build_optimizer(settings, [{"params": [second]}])
    resumed.load_state_dict(optimizer.state_dict())
    steps(second, resumed, gradients[before:])
    assert torch.equal(second, whole)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_finds_a_minimum(kind):
    target = torch.tensor([1.0, -2.0, 3.0])
    parameter = torch.nn.Parameter(torch.zeros(3))
    optimizer = build_optimizer(Optimizer(kind, lr=0.05), [{"params": [parameter]}])
    for step in range(1000):
        optimizer.set_rate(1 - step / 1000)
        optimizer.zero_grad()
        ((parameter - target) ** 2).sum().backward()
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), target, rtol=0, atol=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_without_a_gradient_stay(kind):
    moving, still = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = build_optimizer(Optimizer(kind, lr=0.1), [{"params": [moving, still]}])
    for _ in range(7):
        optimizer.zero_grad()
        moving.sum().backward()
        optimizer.step()
    assert still.tolist() == [1.0, 1.0]
    assert float(moving.detach().max()) < 1


def test_rates_of_groups_follow_their_factor():
    first, second = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    groups = [{"params": [first]}, {"params": [second], "lr_factor": 0.1}]
    optimizer = build_optimizer(Optimizer("sgd", lr=1.0, momentum=0.0), groups)
    optimizer.set_rate(0.5)
    (first + second).sum().backward()
    optimizer.step()
    assert float(first.detach()) == -0.5
    assert float(second.detach()) == pytest.approx(-0.05)


def test_a_rate_of_zero_moves_nothing():
    assert_still = torch.nn.Parameter(torch.ones(1))
    optimizer = build_optimizer(Optimizer("adam", lr=0.1), [{"params": [assert_still]}])
    optimizer.set_rate(0.0)
    assert_still.sum().backward()
    optimizer.step()
    assert float(assert_still.detach()) == 1.0


@pytest.mark.parametrize(
    ("schedule", "points"),
    [
        (Schedule("constant"), {0.0: 1.0, 0.5: 1.0, 1.0: 1.0}),
        (Schedule("cosine"), {0.0: 1.0, 0.25: 0.5 + 0.5**1.5, 0.5: 0.5, 1.0: 0.0}),
        (Schedule("cosine", floor=0.2), {0.0: 1.0, 0.5: 0.6, 1.0: 0.2}),
        (Schedule("poly"), {0.0: 1.0, 0.5: 0.5**0.9, 1.0: 0.0}),
        (Schedule("poly", power=2.0, floor=0.1), {0.5: 0.325, 1.0: 0.1}),
        (Schedule("exponential"), {0.0: 1.0, 0.5: 0.1**0.5, 1.0: 0.1}),
        (Schedule("exponential", gamma=0.03), {0.5: 0.03**0.5, 1.0: 0.03}),
        (
            Schedule("step", milestones=(0.125, 0.25), gamma=0.5),
            {0.0: 1.0, 0.124: 1.0, 0.125: 0.5, 0.3: 0.25, 1.0: 0.25},
        ),
        (Schedule("step"), {0.0: 1.0, 1.0: 1.0}),
    ],
)
def test_schedules_at_their_ends_and_between(schedule: Schedule, points: dict[float, float]):
    for progress, factor in points.items():
        assert learning_rate_factor(schedule, progress, 1000) == pytest.approx(factor, abs=1e-12), progress


def test_step_also_falls_at_steps():
    schedule = Schedule("step", milestones=(0.5,), milestone_steps=(10, 20), gamma=0.5)
    assert [learning_rate_factor(schedule, 0.0, step) for step in (0, 9, 10, 19, 20)] == [1, 1, 0.5, 0.5, 0.25]
    assert learning_rate_factor(schedule, 0.5, 20) == 0.125


@pytest.mark.parametrize("kind", ["constant", "step", "cosine", "poly", "exponential"])
def test_warm_up_starts_low_and_rises_evenly(kind):
    schedule = Schedule(kind, warmup_steps=100, warmup_factor=0.01)
    rates = [learning_rate_factor(schedule, 0.0, step) for step in range(103)]
    assert rates[0] == pytest.approx(0.01)
    assert rates[50] == pytest.approx(0.505)
    assert rates[100:] == [1.0, 1.0, 1.0]
    rises = [b - a for a, b in itertools.pairwise(rates[:101])]
    assert rises == pytest.approx([0.0099] * 100)


def test_log_linear_rates_with_a_warm_up_like_a_sine():
    """The published schedule: 5e-4 to 5e-6 over a million steps, from a hundredth over the first 2,500."""
    schedule = Schedule("exponential", gamma=0.01, warmup_steps=2500, warmup_factor=0.01, warmup="sine")
    published = {0: 5e-6, 1250: 3.5298e-4, 2500: 4.94277e-4, 500_000: 5e-5, 1_000_000: 5e-6}
    for step, expected in published.items():
        assert 5e-4 * learning_rate_factor(schedule, step / 1e6, step) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["step", "cosine", "poly", "exponential"])
def test_schedules_never_rise_without_warm_up(kind):
    schedule = Schedule(kind, milestones=(0.3, 0.7))
    rates = [learning_rate_factor(schedule, step / 50, step) for step in range(51)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[-1]


@pytest.mark.parametrize("settings", [Optimizer(), Schedule()])
def test_settings_are_frozen(settings):
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.kind = "sgd"
