"""Between images that a start has adapted to: their renderings at both ends, a mean of parameters on the way."""

from dataclasses import replace

import pytest
import torch

from commands import refusal
from lumifield.cli import main
from lumifield.data.scene_collection import list_tasks
from lumifield.meta import FewShot, InnerLoop, MetaTrain
from lumifield.meta.adapted_mixture import mix_adapted_clones
from lumifield.meta.few_shot import adapt_to_task
from lumifield.meta.inner_loop import initial_parameters
from lumifield.meta.meta_training import MetaJob, run_meta_training
from lumifield.optim import Optimizer
from lumifield.rendering.view import render_view
from lumifield.runs.run_folder import read_run
from made_collections import TINY, balls
from scenes import written

LOOP = InnerLoop(steps=5, batch_size=32, optimizer=Optimizer(kind="adam", lr=1e-2))
META = MetaTrain(steps=2, inner=LOOP, few_shot=FewShot(loop=LOOP), num_validation_tasks=0, device="cpu")
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    return run_meta_training(MetaJob(TINY, written(folder / "data", views=4, size=8), META, folder / "run"))


def names(run):
    return [task.name for task in list_tasks(read_run(run).source, "train")]


def test_the_ends_are_the_adapted_renderings(run):
    start, (first, second, *_) = read_run(run), names(run)
    there = mix_adapted_clones(start, (first, second, first))
    assert there.scenes["train"].names == (first, second)
    assert there.scenes["test"].names == (first, second, first)
    photograph = list_tasks(start.source, "train")[1].load_images()
    copy, _ = adapt_to_task(start.method, photograph, photograph, LOOP, seed=0)
    expected = render_view(copy, photograph, 0, device=CPU).rgb
    found = render_view(
        there.method, there.scenes["train"], 1, device=CPU, appearance_embedding=there.method.appearance_embeddings[1]
    ).rgb
    assert torch.equal(found, expected)
    assert not torch.equal(render_view(start.method, photograph, 0, device=CPU).rgb, expected)


def test_between_them_are_means_of_their_parameters(run):
    there = mix_adapted_clones(read_run(run), names(run)[:2])
    mixed = there.method.mean(torch.tensor([0.25, 0.75]))
    ends = [there.method.mean(row) for row in there.method.appearance_embeddings]
    for name, value in mixed.items():
        torch.testing.assert_close(value, 0.25 * ends[0][name] + 0.75 * ends[1][name])
    assert set(mixed) == set(initial_parameters(read_run(run).method))


def test_a_film_leads_through_photographs(run, tmp_path):
    first, second = names(run)[:2]
    options = f"--path tour --num-frames 3 --appearance {first} {second} {first} --out {tmp_path / 'tour'}"
    main.main(["render", str(run), *options.split()])
    assert len(list((tmp_path / "tour").glob("*.png"))) == 3
    assert (tmp_path / "tour" / "0000.png").read_bytes() == (tmp_path / "tour" / "0002.png").read_bytes()
    assert (tmp_path / "tour" / "0000.png").read_bytes() != (tmp_path / "tour" / "0001.png").read_bytes()


def test_what_cannot_be_toured_is_told(run, tmp_path, capsys):
    said = refusal(capsys, "render", run, "--appearance", "nowhere", "--out", tmp_path / "tour.gif")
    assert "image 'nowhere': found no image of the collection" in said
    meta = replace(META, few_shot=FewShot(held_out_frames=(3, 6), loop=LOOP))
    objects = run_meta_training(MetaJob(TINY, balls(tmp_path / "objects"), meta, tmp_path / "objects" / "run"))
    said = refusal(capsys, "render", objects, "--appearance", "a", "--out", tmp_path / "tour.gif")
    assert "run: run: found an initialization for scenes" in said
