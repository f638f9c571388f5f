"""Copies of a start: made anew or from what is kept of a scene, they learn the same and leave the start as it is."""

from functools import cache

import pytest
import torch

from lumifield.data.scene_collection import list_tasks
from lumifield.meta import InnerLoop, MetaTrain
from lumifield.meta.inner_loop import adapt_clones, clone_for_scene, initial_parameters, method_for_scene
from lumifield.meta.meta_training import InnerLoops, sample_episodes
from lumifield.meta.monitoring import MetaJob
from lumifield.optim import Optimizer
from lumifield.runtime.rng import Rng
from made_collections import balls, tinted
from scenes import INSTANT, SMALL, bounded

LOOP = InnerLoop(steps=3, batch_size=16, optimizer=Optimizer(kind="adam", lr=1e-2))


def built(settings):
    torch.manual_seed(0)
    return settings.build(bounded())


def shifted(start):
    with torch.no_grad():
        for value in initial_parameters(start).values():
            value += 0.01


@pytest.mark.parametrize("name", SMALL)
def test_copies_of_what_is_kept_are_copies_of_the_start_as_it_is_then(name):
    start = built(SMALL[name])
    kept = method_for_scene(start, bounded())
    shifted(start)
    copy, anew = (
        dict(method.named_parameters())
        for method in (clone_for_scene(start, bounded()), method_for_scene(start, bounded()))
    )
    from_kept = dict(kept.named_parameters())
    for key, value in initial_parameters(start).items():
        assert anew[key] is value is from_kept[key]
        assert copy[key].data_ptr() != value.data_ptr()
        assert torch.equal(copy[key], value)


def test_from_what_is_kept_copies_learn_what_they_learn_when_made_anew():
    start, scenes = built(INSTANT), [tinted(0), tinted(1)]
    root = cache(lambda place: method_for_scene(start, scenes[place]))
    for seed in range(2):
        found, expected = (
            adapt_clones(start, scenes, LOOP, Rng(torch.Generator().manual_seed(seed)), lambda _: None, root=given)
            for given in (root, None)
        )
        for one, other in zip(found, expected, strict=True):
            assert all(torch.equal(value, other[key]) for key, value in one.items())
        shifted(start)


def test_a_task_is_prepared_once(tmp_path, monkeypatch):
    source, made = balls(tmp_path), []
    build = type(INSTANT).build
    monkeypatch.setattr(type(INSTANT), "build", lambda settings, scene: made.append(scene) or build(settings, scene))
    meta = MetaTrain(inner=LOOP, device="cpu")
    inner = InnerLoops(
        MetaJob(INSTANT, source, meta, tmp_path / "run"), list_tasks(source, "train"), torch.device("cpu")
    )
    start = built(INSTANT)
    made.clear()
    for step in range(6):
        inner.adapt_clones(start, sample_episodes(3, step, meta))
    assert len(made) == 3
