"""Inner loops: copies of a start learn their tasks, by the one training loop or as functions of the start."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lumifield import kernels
from lumifield.data.scene import Batch, Scene, sample_batch
from lumifield.meta import InnerLoop
from lumifield.meta.outer import Parameters, descended
from lumifield.meta.stacked import Stacked, joined
from lumifield.methods.base import Method, RenderContext
from lumifield.optim import Schedule
from lumifield.optim.optimizers import build_optimizer
from lumifield.runtime.rng import Rng
from lumifield.training.fit import Budget, Callback, StepReport, TrainingState, fit


def carried(start: Method) -> Parameters:
    """The parameters that a learned start is made of, by name."""
    names = set(start.adaptable_parameters())
    return {name: value for name, value in start.named_parameters() if name in names}


def rooted(start: Method, scene: Scene) -> Method:
    """A method for a scene that shares the start's parameters, as far as they are carried over.

    What it knows of the scene may have taken long to find. Its deep copies are copies of the start as it then is.
    """
    method = start.settings.build(scene).to(next(start.parameters()).device)
    for name, value in carried(start).items():
        owner, _, own = name.rpartition(".")
        setattr(method.get_submodule(owner), own, value)
    return method


def copy_for(start: Method, scene: Scene) -> Method:
    """A method for a scene whose parameters, as far as they are carried over, are those of the start."""
    return deepcopy(rooted(start, scene))


def learn(
    method: Method, scenes: Sequence[Scene], loop: InnerLoop, rng: Rng, callbacks: Sequence[Callback] = ()
) -> None:
    """Trains a method on a scene, or copies side by side on a scene each."""
    state = TrainingState(method, build_optimizer(loop.optimizer, method.param_groups()), rng)
    if isinstance(method, Stacked):
        rays = loop.batch or method.rays_per_step() // len(scenes)
        prepared = side_by_side(scenes, loop.steps, rays, rng)
        fit(state, lambda *_: next(prepared), Budget(loop.steps), Schedule(), callbacks=callbacks)
    else:
        (scene,) = scenes
        fit(
            state,
            lambda rays, rng: sample_batch(scene, loop.batch or rays, rng, patch_size=method.patch_size),
            Budget(loop.steps),
            Schedule(),
            callbacks=callbacks,
        )


def side_by_side(scenes: Sequence[Scene], steps: int, rays: int, rng: Rng) -> Iterator[Batch]:
    """Batches of `rays` pixels of each scene, all drawn at once."""
    drawn = [sample_batch(scene, steps * rays, rng) for scene in scenes]
    for step in range(steps):
        own = slice(step * rays, (step + 1) * rays)
        yield joined([Batch(batch.rays[own], batch.rgb[own], batch.background[own]) for batch in drawn])


def adapted(
    start: Method,
    scenes: Sequence[Scene],
    loop: InnerLoop,
    rng: Rng,
    note: Callable[[StepReport], None],
    *,
    root: Callable[[int], Method] | None = None,
) -> list[Parameters]:
    """What copies of the start become on their scenes; `note` hears of the last step.

    `root` gives what `rooted` made for a scene by its place, where that is kept.
    """

    def last(state: TrainingState, report: StepReport) -> None:
        if state.step == loop.steps:
            note(report)

    if start.supports_vmap and len(scenes) > 1:
        together = Stacked(start, len(scenes))
        learn(together, scenes, loop, rng, [last])
        return together.copies()
    found = []
    for place, scene in enumerate(scenes):
        copy = copy_for(start, scene) if root is None else deepcopy(root(place))
        learn(copy, [scene], loop, rng, [last])
        found.append({name: copy.get_parameter(name).detach() for name in carried(start)})
    return found


class Objective(nn.Module):
    """A method's whole objective on a batch, so that one call with other parameters gives it."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch, rng: Rng | None) -> Tensor:
        """The sum of the losses."""
        rendered = self.method(batch.rays, RenderContext(batch.background, rng=rng, patch_size=batch.patch_size))
        return torch.stack(list(self.method.losses(rendered, batch).values())).sum()


def objective(
    start: Method, scene: Scene, loop: InnerLoop, rng: Rng, *, second_order: bool, root: Method | None = None
) -> Tensor:
    """The loss, on new rays, of a copy after gradient steps on the scene, as a function of the start's parameters.

    `root` is what `rooted` made for the scene, where that is kept.
    """
    copy, rays = Objective(root or rooted(start, scene)), loop.batch or start.rays_per_step()

    def loss(parameters: Parameters, batch: Batch) -> Tensor:
        return functional_call(copy, {f"method.{name}": value for name, value in parameters.items()}, (batch, rng))

    batches = (sample_batch(scene, rays, rng, patch_size=start.patch_size) for _ in range(loop.steps))
    # Compiled kernels have no second derivative.
    with kernels.backend("reference"):
        moved = descended(loss, carried(start), batches, loop.optimizer.lr, second_order=second_order)
        return loss(moved, sample_batch(scene, rays, rng, patch_size=start.patch_size))
