import logging
from dataclasses import replace

import pytest
import torch

from lumifield.data.scene import sample_batch
from lumifield.methods.base import Method, Rendered
from lumifield.optim import Optimizer, Schedule
from lumifield.optim.optimizers import build_optimizer
from lumifield.runs.state import Budget
from lumifield.runtime.rng import Rng
from lumifield.training import TrainingError, guard
from lumifield.training.fit import TrainingState, fit
from lumifield.training.guard import CollapsedError, DivergedError, DivergenceGuard, max_channel_std
from scenes import NERF, NLR, ball

SCENE = ball(2, 8)
RATE = 1e-3


def state_of(method: Method) -> TrainingState:
    optimizer = build_optimizer(Optimizer(lr=RATE), method.param_groups())
    return TrainingState(method, optimizer, Rng(torch.Generator().manual_seed(0)))


def nerf_state() -> TrainingState:
    torch.manual_seed(0)
    return state_of(NERF.build(SCENE))


def poisoned_at(steps: set[int], calls: list[int]):
    """Batches whose colors are NaN in the given calls (from 0)."""

    def next_batch(rays, rng):
        batch = sample_batch(SCENE, rays, rng)
        calls.append(len(calls))
        return replace(batch, rgb=batch.rgb * torch.nan) if calls[-1] in steps else batch

    return next_batch


def weights(state: TrainingState) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in state.method.state_dict().items()}


def test_a_loss_of_nan_is_rolled_back_with_half_the_rate(caplog):
    state, history = nerf_state(), {}

    def note(state, report):
        history[state.step] = (weights(state), report.learning_rate_factor)

    with caplog.at_level(logging.WARNING):
        fit(state, poisoned_at({4}, []), Budget(8), Schedule(), callbacks=[DivergenceGuard(), note])
    # The first step's state was the last one known to be good.
    assert all(torch.equal(history[5][0][name], history[1][0][name]) for name in history[1][0])
    assert [history[step][1] for step in (4, 5, 6, 8)] == [1, 1, 0.5, 0.5]
    assert "not finite at step 5: rolled back to step 1 with half the learning rate" in caplog.text
    assert all(bool(value.isfinite().all()) for value in weights(state).values())
    assert not torch.equal(weights(state)["fine.color.weight"], history[5][0]["fine.color.weight"])


def test_the_moments_of_the_optimizer_are_rolled_back_too():
    state = nerf_state()
    fit(state, poisoned_at({3}, []), Budget(4), Schedule(), callbacks=[DivergenceGuard()])
    moments = state.optimizer.state_dict()["state"]
    assert all(int(entry["step"]) == 1 for entry in moments.values())
    assert all(bool(entry["exp_avg"].isfinite().all()) for entry in moments.values())


def test_the_state_to_return_to_is_renewed(monkeypatch, caplog):
    monkeypatch.setattr(guard, "SNAPSHOT_EVERY", 3)
    fit(nerf_state(), poisoned_at({7}, []), Budget(8), Schedule(), callbacks=[DivergenceGuard()])
    assert "rolled back to step 6" in caplog.text


def test_broken_parameters_are_never_the_state_to_return_to(monkeypatch, caplog):
    monkeypatch.setattr(guard, "SNAPSHOT_EVERY", 3)
    state = nerf_state()

    def break_a_weight(state, report):
        if state.step == 3:
            with torch.no_grad():
                state.method.fine.density.weight[0, 0] = torch.nan

    fit(state, poisoned_at(set(), []), Budget(5), Schedule(), callbacks=[break_a_weight, DivergenceGuard()])
    assert "not finite at step 4: rolled back to step 1" in caplog.text
    assert all(bool(value.isfinite().all()) for value in weights(state).values())


def test_numbers_that_break_again_and_again_end_the_run():
    state = nerf_state()
    with pytest.raises(DivergedError, match="the loss is not finite at step 7, after 5 rollbacks"):
        fit(state, poisoned_at(set(range(1, 100)), []), Budget(100), Schedule(), callbacks=[DivergenceGuard()])
    assert state.rate_factor == 0.5**5


def test_numbers_that_are_broken_from_the_start_end_the_run():
    with pytest.raises(DivergedError, match="the loss is not finite at step 1, after 0 rollbacks"):
        fit(nerf_state(), poisoned_at({0}, []), Budget(100), Schedule(), callbacks=[DivergenceGuard()])


class Painter(Method):
    """One color for all rays, or a random one each where `lively`."""

    lively = False

    def __init__(self) -> None:
        super().__init__()
        self.color = torch.nn.Parameter(torch.full((3,), 0.5))

    def forward(self, rays, context):
        noise = context.rng.uniform(len(rays), 3) if self.lively else 0.0
        return Rendered(self.color.expand(len(rays), 3) + noise, rays.far, rays.far)

    def losses(self, rendered, batch):
        return {"rgb": ((rendered.rgb - batch.rgb) ** 2).mean()}

    def rays_per_step(self):
        return 32


def test_a_method_that_shows_one_color_has_collapsed():
    state = state_of(Painter())
    with pytest.raises(CollapsedError, match="all rays have had one color for 200 steps up to step 200"):
        fit(state, lambda r, d: sample_batch(SCENE, r, d), Budget(1000), Schedule(), callbacks=[DivergenceGuard()])


def test_a_flat_start_that_comes_to_life_is_no_collapse():
    state = state_of(Painter())

    def enliven(state, report):
        state.method.lively = state.step % 150 == 0

    assert (
        fit(
            state,
            lambda r, d: sample_batch(SCENE, r, d),
            Budget(500),
            Schedule(),
            callbacks=[enliven, DivergenceGuard()],
        ).step
        == 500
    )


def test_one_color_is_right_where_the_photographs_have_one():
    images = replace(SCENE.images, pixels=torch.full_like(SCENE.images.pixels, 200))
    state = state_of(Painter())
    plain = replace(SCENE, images=images)
    assert (
        fit(state, lambda r, d: sample_batch(plain, r, d), Budget(300), Schedule(), callbacks=[DivergenceGuard()]).step
        == 300
    )


def test_spread_is_that_of_the_liveliest_channel():
    colors = torch.tensor([[0.0, 0.5, 0.1], [1.0, 0.5, 0.1]])
    assert max_channel_std(colors) == pytest.approx(0.5**0.5)
    assert max_channel_std(colors[:1]) == float("inf")


def test_both_faults_are_faults_of_training():
    assert issubclass(CollapsedError, TrainingError)
    assert issubclass(DivergedError, TrainingError)


def test_steps_that_carve_may_show_one_color(monkeypatch):
    monkeypatch.setattr(guard, "COLLAPSED_STEPS", 2)
    scene = ball(4, 12)
    state = state_of(replace(NLR, num_mask_only_steps=3, num_joint_steps=1).build(scene))
    fit(
        state,
        lambda rays, rng: sample_batch(scene, rays, rng, patch_size=state.method.traits.patch_size),
        Budget(3),
        Schedule(),
        callbacks=[DivergenceGuard()],
    )
    assert state.step == 3
