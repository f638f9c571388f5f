"""Interpolation between clones of an initialization that are adapted to images of one place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lumifield import data
from lumifield.data.scene import Scene
from lumifield.data.scene_collection import Task, list_tasks
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rays import Rays
from lumifield.meta.few_shot import adapt_to_task, read_meta_settings
from lumifield.meta.inner_loop import initial_parameters
from lumifield.meta.outer_loop import Parameters
from lumifield.methods.base import Method, RenderContext, Rendered
from lumifield.runs.run_folder import LoadedRun


class AdaptedMixture(Method):
    """Adapted clones as one method with weighted mean parameters; an embedding holds the weights."""

    def __init__(self, initialization: Method, clones: Sequence[Parameters]) -> None:
        super().__init__()
        self.settings = initialization.settings
        self._initialization = (initialization,)  # a tuple, so that the method is not registered as a submodule
        self._names = list(clones[0])
        self.stacks = nn.ParameterList(torch.stack([clone[name].detach() for clone in clones]) for name in self._names)

    @property
    def appearance_embeddings(self) -> Float[Tensor, "n n"]:
        """One-hot weights of each clone."""
        return torch.eye(len(self.stacks[0]), device=self.stacks[0].device)

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Renders with the weighted mean of the parameters; without an embedding with their mean."""
        weights = (
            self.appearance_embeddings.mean(0) if context.appearance_embedding is None else context.appearance_embedding
        )
        return functional_call(
            self._initialization[0], self.mean(weights), (rays, replace(context, appearance_embedding=None))
        )

    def mean(self, weights: Float[Tensor, " n"]) -> Parameters:
        """Weighted mean of the parameters."""
        return {name: torch.tensordot(weights, stack, 1) for name, stack in zip(self._names, self.stacks, strict=True)}


def mix_adapted_clones(run: LoadedRun, names: Sequence[str]) -> LoadedRun:
    """The run with clones of its initialization adapted to the named images, each once.

    The images are its train scene and, in the given order, its test scene, which paths pass through. Raises `DataError`
    for an unknown name, and for a collection of scenes.
    """
    if run.source is None or data.find_format(run.source.data) is None:
        found, fix = "an initialization for scenes", "adapt it to a scene with `eval --save-adapted` and render that"
        raise DataError(run.folder, "run", found, "an initialization for images of one place", fix)
    loop = read_meta_settings(run).few_shot.loop
    every = {task.name: task for split in run.capture.splits for task in list_tasks(run.source, split)}
    order = [find_image_task(every, name, run) for name in names]
    once = list({task.name: task for task in order}.values())
    clones = [adapt_to_task(run.method, image, image, loop, seed=0)[0] for image in map(Task.load_images, once)]
    method = AdaptedMixture(run.method, [initial_parameters(clone) for clone in clones]).to(run.device).eval()
    return replace(run, method=method, scenes={"train": merge_scenes(once), "test": merge_scenes(order)})


def merge_scenes(tasks: Sequence[Task]) -> Scene:
    """The images as one scene, without pixels."""
    scenes = [task.cameras() for task in tasks]
    cameras = {f.name: torch.cat([getattr(scene.cameras, f.name) for scene in scenes]) for f in fields(Cameras)}
    near, far = (torch.cat([getattr(scene, name) for scene in scenes]) for name in ("near", "far"))
    names = tuple(name for scene in scenes for name in scene.names)
    return replace(scenes[0], cameras=Cameras(**cameras), names=names, near=near, far=far)


def find_image_task(every: dict[str, Task], name: str, run: LoadedRun) -> Task:
    """Image by name with or without folder and extension."""
    found = [task for own, task in every.items() if name in (own, Path(own).name, Path(own).stem)]
    if len(found) != 1:
        problem = "the name of several images" if found else "no image of the collection"
        raise DataError(run.folder, f"image {name!r}", problem, f"a name such as {next(iter(every))}", "name an image")
    return found[0]
