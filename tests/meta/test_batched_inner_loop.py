"""Copies side by side learn what each would learn alone."""

from dataclasses import dataclass, replace

import pytest
import torch

from lumifield.data.scene import sample_batch
from lumifield.meta import InnerLoop
from lumifield.meta.batched_inner_loop import BatchedMethod, merge_batches
from lumifield.meta.inner_loop import adapt_clones, clone_for_scene
from lumifield.methods.base import RenderContext, TrainingContext
from lumifield.optim import Optimizer
from lumifield.optim.optimizers import build_optimizer
from lumifield.rendering.view import render_view
from lumifield.runtime.image_metrics import mean_squared_error
from lumifield.runtime.rng import Rng
from made_collections import TINY, tinted
from scenes import SIMPLE_NERF, bounded

COPIES, RAYS = 3, 20


@dataclass(frozen=True)
class Block(Rng):
    """The share of one clone in the numbers that all clones draw together."""

    copy: int = 0

    def uniform(self, rows, columns):
        every = Rng(self.generator).uniform(COPIES * rows, columns)
        return every[self.copy * rows : (self.copy + 1) * rows]


def generator():
    return torch.Generator().manual_seed(5)


def start():
    torch.manual_seed(0)
    return SIMPLE_NERF.build(bounded())


def batches():
    return [sample_batch(tinted(number), RAYS, Rng(torch.Generator().manual_seed(number))) for number in range(COPIES)]


@pytest.mark.parametrize("kind", ["sgd", "adam"])
def test_copies_side_by_side_equal_copies_by_themselves(kind):
    optimizer = Optimizer(kind=kind, lr=0.02, momentum=0.0)
    method, parts = start(), batches()
    together = BatchedMethod(method, COPIES)
    inner, source = build_optimizer(optimizer, together.param_groups()), Rng(generator())
    whole = merge_batches(parts)
    for _ in range(6):
        seen = together(whole.rays, TrainingContext(whole.background, 0, source))
        inner.zero_grad()
        together.losses(seen, whole)["rgb"].backward()
        inner.step()
    assert seen.samples == COPIES * RAYS * SIMPLE_NERF.num_samples
    for number, (batch, found) in enumerate(zip(parts, together.clones(), strict=True)):
        alone = clone_for_scene(method, bounded())
        inner, source = build_optimizer(optimizer, alone.param_groups()), Block(generator(), copy=number)
        for _ in range(6):
            loss = alone.losses(alone(batch.rays, TrainingContext(batch.background, 0, source)), batch)["rgb"]
            inner.zero_grad()
            loss.backward()
            inner.step()
        for name, value in alone.named_parameters():
            torch.testing.assert_close(found[name], value.detach(), rtol=0, atol=1e-4)
            assert not torch.equal(value, method.get_parameter(name)) or "density" in name


def test_copies_learn_their_own_task():
    loop = InnerLoop(steps=150, batch_size=32, optimizer=Optimizer(kind="adam", lr=1e-2))
    scenes = [tinted(0), tinted(2)]
    torch.manual_seed(0)
    common, errors = TINY.build(bounded()), []
    for parameters in adapt_clones(common, scenes, loop, Rng(generator()), lambda _: None):
        copy = clone_for_scene(common, bounded())
        copy.load_state_dict(parameters)
        views = [render_view(copy, scene, 0, device=torch.device("cpu")).rgb for scene in scenes]
        errors.append(
            [mean_squared_error(view, scene.ground_truth(0)) for view, scene in zip(views, scenes, strict=True)]
        )
    assert errors[0][0] < 0.7 * errors[1][0]
    assert errors[1][1] < 0.7 * errors[0][1]


def test_the_start_stays_as_it_is():
    method = start()
    before = {name: value.detach().clone() for name, value in method.named_parameters()}
    adapt_clones(method, [tinted(0), tinted(1)], InnerLoop(steps=2, batch_size=8), Rng(generator()), lambda _: None)
    assert all(torch.equal(value, before[name]) for name, value in method.named_parameters())
    assert all(value.grad is None for value in method.parameters())


def test_bfloat16_changes_little():
    exact, short = (
        adapt_clones(
            clone_for_scene(start(), bounded()) if bf16 == "off" else with_bf16(),
            [tinted(0), tinted(1)],
            InnerLoop(steps=3, batch_size=16),
            Rng(generator()),
            lambda _: None,
        )
        for bf16 in ("off", "on")
    )
    for a, b in zip(exact, short, strict=True):
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=0, atol=0.02)
    assert any(not torch.equal(exact[0][name], short[0][name]) for name in exact[0])


def with_bf16():
    torch.manual_seed(0)
    return replace(SIMPLE_NERF, bf16="on").build(bounded())


def test_no_rays():
    together = BatchedMethod(start(), 2)
    rays = bounded().rays(0)[slice(0, 0)]
    seen = together(rays, RenderContext(torch.ones(3)))
    assert (seen.rgb.shape, seen.depth.shape, seen.samples) == ((0, 3), (0,), 0)
