"""Images of one place that a learned start has adapted to, and all that lies between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from lumifield import data
from lumifield.data.collection import Task, tasks
from lumifield.data.scene import Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.rays import Rays
from lumifield.meta import MetaTrain
from lumifield.meta.few_shot import taught
from lumifield.meta.inner import carried
from lumifield.meta.outer import Parameters
from lumifield.methods.base import Method, RenderContext, Rendered
from lumifield.runs.run_folder import CONFIG, LoadedRun
from lumifield.runtime.config import from_plain


class Between(Method):
    """Adapted copies of a method as one, whose parameters are means of theirs: an embedding holds their weights."""

    def __init__(self, start: Method, copies: Sequence[Parameters]) -> None:
        super().__init__()
        self.settings = start.settings
        self._start = (start,)  # a tuple, so that the start does not become a part of this
        self._names = list(copies[0])
        self.stacks = nn.ParameterList(torch.stack([copy[name].detach() for copy in copies]) for name in self._names)

    @property
    def appearance_embeddings(self) -> Float[Tensor, "n n"]:
        """All the weight on one copy, each in turn."""
        return torch.eye(len(self.stacks[0]), device=self.stacks[0].device)

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """What the mean by the embedding sees, without one the mean of all."""
        weights = (
            self.appearance_embeddings.mean(0) if context.appearance_embedding is None else context.appearance_embedding
        )
        return functional_call(self._start[0], self.mean(weights), (rays, replace(context, appearance_embedding=None)))

    def mean(self, weights: Float[Tensor, " n"]) -> Parameters:
        """Parameters in the mean of the copies."""
        return {name: torch.tensordot(weights, stack, 1) for name, stack in zip(self._names, self.stacks, strict=True)}


def adapted_to(run: LoadedRun, names: Sequence[str]) -> LoadedRun:
    """The run with copies of its start that have learned the named images, each once and whole.

    These are its train scene, and in the order of the names its test scene, which paths lead through.
    Raises `DataError` for a name that no image of the collection has, and for a collection of scenes.
    """
    if run.source is None or data.known(run.source.data) is None:
        found, fix = "a start for scenes", "adapt it to one with `eval --save-adapted`, and render that"
        raise DataError(run.folder, "run", found, "a start for images of one place", fix)
    loop = from_plain(MetaTrain, run.config["meta"], run.folder / CONFIG).few_shot.loop
    every = {task.name: task for split in data.splits(run.source) for task in tasks(run.source, split)}
    order = [named(every, name, run) for name in names]
    once = list({task.name: task for task in order}.values())
    copies = [taught(run.method, photograph, photograph, loop, seed=0)[0] for photograph in map(Task.photographs, once)]
    method = Between(run.method, [carried(copy) for copy in copies]).to(run.device).eval()
    return replace(run, method=method, scenes={"train": together(once), "test": together(order)})


def together(photographs: Sequence[Task]) -> Scene:
    """The images as one scene, without their pixels."""
    scenes = [task.cameras() for task in photographs]
    cameras = {f.name: torch.cat([getattr(scene.cameras, f.name) for scene in scenes]) for f in fields(Cameras)}
    near, far = (torch.cat([getattr(scene, name) for scene in scenes]) for name in ("near", "far"))
    names = tuple(name for scene in scenes for name in scene.names)
    return replace(scenes[0], cameras=Cameras(**cameras), names=names, near=near, far=far)


def named(every: dict[str, Task], name: str, run: LoadedRun) -> Task:
    """The image of a name with or without folder and ending."""
    found = [task for own, task in every.items() if name in (own, Path(own).name, Path(own).stem)]
    if len(found) != 1:
        told = "the name of several images" if found else "no image of the collection"
        raise DataError(run.folder, f"image {name!r}", told, f"a name such as {next(iter(every))}", "name one")
    return found[0]
