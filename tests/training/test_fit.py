import math
import time
from contextlib import suppress

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lumifield.data.scene import sample_batch
from lumifield.methods.base import Method, Rendered
from lumifield.optim import Optimizer, Schedule
from lumifield.optim.optimizers import build_optimizer
from lumifield.runs.state import Budget, TrainingClock
from lumifield.runtime import distributed
from lumifield.runtime.rng import Rng
from lumifield.training.fit import TrainingState, fit
from scenes import NERF, ball

SCENE = ball(2, 8)


class Constant(Method):
    """One color everywhere; counts what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.color = nn.Parameter(torch.zeros(3))
        self.unused = nn.Parameter(torch.ones(2))
        self.told: list[tuple] = []

    def forward(self, rays, context):
        self.told.append(("forward", context.step, self.training))
        rgb = self.color + torch.zeros(len(rays), 3)
        return Rendered(rgb, rays.far, torch.ones(len(rays)), samples=3 * len(rays))

    def losses(self, rendered, batch):
        half = 0.5 * ((rendered.rgb - batch.rgb) ** 2).sum(-1).mean()
        return {"first": half, "second": half}

    def rays_per_step(self):
        return 16

    def before_step(self, step, rng):
        self.told.append(("before", step))

    def after_step(self, step, rays, samples):
        self.told.append(("after", step, rays, samples))


def state_of(method: Method, lr: float = 0.1) -> TrainingState:
    optimizer = build_optimizer(Optimizer(kind="sgd", lr=lr, momentum=0.0), method.param_groups())
    return TrainingState(method, optimizer, Rng(torch.Generator().manual_seed(0)))


def next_batch(rays, rng):
    return sample_batch(SCENE, rays, rng)


def test_a_step_is_plain_gradient_descent_on_the_sum_of_the_losses():
    method, twin = Constant(), torch.zeros(3)
    fit(state_of(method), next_batch, Budget(5), Schedule())
    rng = Rng(torch.Generator().manual_seed(0))
    for _ in range(5):
        twin -= 0.1 * 2 * (twin - next_batch(16, rng).rgb).mean(0)
    torch.testing.assert_close(method.color.detach(), twin)
    assert torch.equal(method.unused.detach(), torch.ones(2))


def test_the_method_is_told_of_every_step():
    method = Constant()
    fit(state_of(method), next_batch, Budget(2), Schedule())
    one = [("before", 0), ("forward", 0, True), ("after", 0, 16, 48)]
    assert method.told == [*one, ("before", 1), ("forward", 1, True), ("after", 1, 16, 48)]


def test_listeners_hear_of_every_step_in_their_order():
    heard = []
    state = state_of(Constant())
    callbacks = [lambda s, r: heard.append(("a", s.step)), lambda s, r: heard.append(("b", s.step))]
    fit(state, next_batch, Budget(2), Schedule(), callbacks=callbacks)
    assert heard == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]
    assert (state.step, state.rays) == (2, 32)


def test_a_report_holds_what_the_step_found():
    reports = []
    schedule = Schedule(kind="poly", power=1.0)
    fit(state_of(Constant()), next_batch, Budget(4), schedule, callbacks=[lambda s, r: reports.append(r)])
    first = reports[0]
    assert first.losses.keys() == {"first", "second"}
    assert first.loss == pytest.approx(float((first.ground_truth**2).sum(-1).mean()))
    assert torch.equal(first.predicted, torch.zeros(16, 3))
    assert not first.predicted.requires_grad
    assert (first.rays, first.samples) == (16, 48)
    assert [r.learning_rate_factor for r in reports] == [1, 0.75, 0.5, 0.25]
    assert [r.fraction for r in reports] == [0, 0.25, 0.5, 0.75]


def test_a_listener_can_stop_the_run():
    def stop(state, report):
        state.stopped = state.step == 3

    assert fit(state_of(Constant()), next_batch, Budget(10), Schedule(), callbacks=[stop]).step == 3


def test_the_rate_factor_scales_the_rate():
    whole, half = state_of(Constant(), lr=0.1), state_of(Constant(), lr=0.2)
    half.rate_factor = 0.5
    for state in (whole, half):
        fit(state, next_batch, Budget(3), Schedule())
    torch.testing.assert_close(whole.method.color, half.method.color)


def test_each_number_of_the_gradient_is_clipped():
    plain, clipped = Constant(), Constant()
    with torch.no_grad():
        for method in (plain, clipped):
            method.color[0] = 1.0
    for method, limit in ((plain, 0.0), (clipped, 0.2)):
        fit(state_of(method, lr=1.0), next_batch, Budget(1), Schedule(), max_grad_value=limit)
    start = torch.tensor([1.0, 0.0, 0.0])
    moved = (start - plain.color.detach()).clamp(-0.2, 0.2)
    assert float(moved.abs().max()) == pytest.approx(0.2)
    assert float(moved.abs().min()) < 0.2
    torch.testing.assert_close(start - clipped.color.detach(), moved)


def test_the_gradient_is_clipped_to_its_largest_norm():
    method = Constant()
    fit(state_of(method, lr=1.0), next_batch, Budget(1), Schedule(), max_grad_norm=0.01)
    assert float(method.color.detach().norm()) == pytest.approx(0.01, rel=1e-3)


def test_nothing_is_trained_when_the_budget_is_spent():
    state = state_of(Constant())
    assert fit(state, next_batch, Budget(0), Schedule()).step == 0
    assert fit(state, next_batch, Budget(seconds=0.0), Schedule()).step == 0
    assert torch.equal(state.method.color.detach(), torch.zeros(3))


def test_training_lowers_the_loss():
    torch.manual_seed(0)
    method, losses = NERF.build(SCENE), []
    state = TrainingState(method, build_optimizer(Optimizer(lr=1e-2), method.param_groups()), Rng(torch.Generator()))
    fit(state, next_batch, Budget(60), Schedule(), callbacks=[lambda s, r: losses.append(r.loss)])
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])


@given(st.integers(1, 10**6), st.floats(1e-3, 1e6), st.integers(0, 10**7), st.floats(0, 1e7))
def test_a_run_is_over_when_its_steps_or_its_seconds_are(steps, seconds, step, elapsed):
    both = Budget(steps, seconds).fraction(step, elapsed)
    assert 0 <= both <= 1
    assert both == max(Budget(steps).fraction(step, elapsed), Budget(seconds=seconds).fraction(step, elapsed))
    assert (both >= 1) == (step >= steps or elapsed / seconds >= 1)


def test_a_run_without_a_budget_never_ends():
    assert Budget().fraction(10**9, 1e9) == 0


def test_the_clock_runs_stands_still_and_goes_on(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    clock = TrainingClock(7.0)
    now[0] += 2
    assert clock.seconds == 9
    with clock.paused():
        now[0] += 50
    assert clock.seconds == 9
    now[0] += 1
    assert clock.seconds == 10
    with suppress(ZeroDivisionError), clock.paused():
        now[0] += 50
        raise ZeroDivisionError
    assert clock.seconds == 10


def test_one_process_shares_with_nobody():
    values = torch.tensor([1.0, math.nan])
    assert distributed.sum_over_processes(5, 1) == 5
    assert distributed.broadcast_fraction(0.25, 1) == 0.25
    assert distributed.mean_over_processes(values, 1)[0] == 1
    assert math.isnan(distributed.mean_over_processes(values, 1)[1])
