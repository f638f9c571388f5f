"""Inner loops: clones of an initialization adapt to their tasks, by `fit` or as functions of the initialization."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from lumifield import kernels
from lumifield.data.scene import Batch, Scene, sample_batch
from lumifield.meta import InnerLoop
from lumifield.meta.batched_inner_loop import BatchedMethod, merge_batches
from lumifield.meta.outer_loop import Parameters, gradient_descent
from lumifield.methods.base import Method, TrainingContext
from lumifield.optim import Schedule
from lumifield.optim.optimizers import build_optimizer
from lumifield.runs.state import Budget
from lumifield.runtime.rng import Rng
from lumifield.training.fit import Callback, StepReport, TrainingState, fit


def initial_parameters(initialization: Method) -> Parameters:
    """Parameters of the initialization by name."""
    names = set(initialization.adaptable_parameters())
    return {name: value for name, value in initialization.named_parameters() if name in names}


def method_for_scene(initialization: Method, scene: Scene) -> Method:
    """A method for a scene that shares the adaptable parameters of the initialization.

    Scene-dependent state may be expensive to compute; deep copies are clones of the current initialization.
    """
    method = initialization.settings.build(scene).to(next(initialization.parameters()).device)
    for name, value in initial_parameters(initialization).items():
        owner, _, own = name.rpartition(".")
        setattr(method.get_submodule(owner), own, value)
    return method


def clone_for_scene(initialization: Method, scene: Scene) -> Method:
    """A method for a scene with the adaptable parameters of the initialization."""
    return deepcopy(method_for_scene(initialization, scene))


def run_inner_loop(
    method: Method, scenes: Sequence[Scene], loop: InnerLoop, rng: Rng, callbacks: Sequence[Callback] = ()
) -> None:
    """Trains a method on a scene, or batched clones on one scene each."""
    state = TrainingState(method, build_optimizer(loop.optimizer, method.param_groups()), rng)
    if isinstance(method, BatchedMethod):
        rays = loop.batch_size or method.rays_per_step() // len(scenes)
        prepared = batches_per_scene(scenes, loop.steps, rays, rng)
        fit(state, lambda *_: next(prepared), Budget(loop.steps), Schedule(), callbacks=callbacks)
    else:
        (scene,) = scenes
        fit(
            state,
            lambda rays, rng: sample_batch(scene, loop.batch_size or rays, rng, patch_size=method.traits.patch_size),
            Budget(loop.steps),
            Schedule(),
            callbacks=callbacks,
        )


def batches_per_scene(scenes: Sequence[Scene], steps: int, rays: int, rng: Rng) -> Iterator[Batch]:
    """Batches of `rays` pixels of each scene, all sampled at once."""
    drawn = [sample_batch(scene, steps * rays, rng) for scene in scenes]
    for step in range(steps):
        own = slice(step * rays, (step + 1) * rays)
        yield merge_batches([Batch(batch.rays[own], batch.rgb[own], batch.background[own]) for batch in drawn])


def adapt_clones(
    initialization: Method,
    scenes: Sequence[Scene],
    loop: InnerLoop,
    rng: Rng,
    report_last_step: Callable[[StepReport], None],
    *,
    root: Callable[[int], Method] | None = None,
) -> list[Parameters]:
    """Adapted parameters of clones on their scenes; `report_last_step` receives the last step.

    `root` returns the cached `method_for_scene` of a scene by its index.
    """

    def last(state: TrainingState, report: StepReport) -> None:
        if state.step == loop.steps:
            report_last_step(report)

    if initialization.traits.supports_vmap and len(scenes) > 1:
        together = BatchedMethod(initialization, len(scenes))
        run_inner_loop(together, scenes, loop, rng, [last])
        return together.clones()
    found = []
    for place, scene in enumerate(scenes):
        clone = clone_for_scene(initialization, scene) if root is None else deepcopy(root(place))
        run_inner_loop(clone, [scene], loop, rng, [last])
        found.append({name: clone.get_parameter(name).detach() for name in initial_parameters(initialization)})
    return found


class MethodObjective(nn.Module):
    """Objective of a method on a batch as one call, for functional evaluation with other parameters."""

    def __init__(self, method: Method) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Batch, rng: Rng) -> Tensor:
        """Sum of the losses."""
        rendered = self.method(batch.rays, TrainingContext(batch.background, 0, rng, patch_size=batch.patch_size))
        return torch.stack(list(self.method.losses(rendered, batch).values())).sum()


def adaptation_objective(
    initialization: Method, scene: Scene, loop: InnerLoop, rng: Rng, *, second_order: bool, root: Method | None = None
) -> Tensor:
    """Loss on new rays of a clone after gradient steps, as a function of the parameters of the initialization.

    `root` is the cached `method_for_scene`.
    """
    clone = MethodObjective(root or method_for_scene(initialization, scene))
    rays = loop.batch_size or initialization.rays_per_step()

    def loss(parameters: Parameters, batch: Batch) -> Tensor:
        return functional_call(clone, {f"method.{name}": value for name, value in parameters.items()}, (batch, rng))

    batches = (sample_batch(scene, rays, rng, patch_size=initialization.traits.patch_size) for _ in range(loop.steps))
    # Compiled kernels have no second derivative.
    with kernels.backend("reference"):
        adapted = gradient_descent(
            loss, initial_parameters(initialization), batches, loop.optimizer.lr, second_order=second_order
        )
        return loss(adapted, sample_batch(scene, rays, rng, patch_size=initialization.traits.patch_size))
