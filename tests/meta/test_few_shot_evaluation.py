"""What a learned start is scored by: the protocols, the starts beside it, and the files."""

import json
from dataclasses import replace

import pytest
import torch

from commands import refusal
from lumifield.cli import main
from lumifield.data import Source
from lumifield.data.scene_collection import list_tasks
from lumifield.errors import DataError
from lumifield.meta import FewShot, InnerLoop, MetaTrain, reference_initializations
from lumifield.meta.few_shot import adapt_to_task, evenly_spaced_views, mask_half, mean_psnr, split_task
from lumifield.meta.inner_loop import initial_parameters, run_inner_loop
from lumifield.meta.meta_training import MetaJob, run_meta_training
from lumifield.meta.reference_initializations import (
    matched_initialization,
    random_initialization,
    rendering_psnr,
    shuffled_initialization,
    with_rendered_images,
)
from lumifield.methods import SimpleNerf
from lumifield.optim import Optimizer
from lumifield.runs.run_folder import read_run
from lumifield.runtime.rng import Rng
from made_collections import TINY, balls
from scenes import bounded, written

LOOP = InnerLoop(steps=12, batch_size=32, optimizer=Optimizer(kind="adam", lr=5e-3))
FEW = FewShot(num_support_images=2, held_out_frames=(3, 6), loop=LOOP)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return balls(tmp_path_factory.mktemp("collection"))


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    inner = replace(LOOP, steps=15)
    outer = Optimizer(kind="sgd", lr=0.5, momentum=0.0)
    meta = MetaTrain(steps=40, inner=inner, outer=outer, few_shot=FEW, num_validation_tasks=0, device="cpu")
    return run_meta_training(MetaJob(TINY, source, meta, tmp_path_factory.mktemp("run") / "run"))


def test_the_frames_of_an_object_are_divided_as_asked(source):
    (task,) = list_tasks(source, "test")
    support, held_out = split_task(task, FEW)
    assert (support.names, held_out.names) == (("000", "001"), ("003", "004", "005"))
    with pytest.raises(DataError, match=r"held-out frames: found 25 to 50"):
        split_task(task, FewShot())


def test_a_scene_has_its_own_held_out_photographs(tmp_path):
    for name in "ab":
        written(tmp_path / name, views=4, size=8)
    support, held_out = split_task(list_tasks(Source(tmp_path), "train")[0], FEW)
    assert len(support) == 2
    assert held_out.names == ("test/r_1", "test/r_3")


def test_a_photograph_is_divided_in_halves(tmp_path):
    task = list_tasks(written(tmp_path, views=2, size=8), "train")[1]
    left, right = split_task(task, FEW)
    assert left.names == right.names == (task.name,)
    assert left.valid_mask(0)[:, :4].all()
    assert torch.equal(left.valid_mask(0), ~right.valid_mask(0))


def test_the_right_half_has_the_middle_column_and_masks_stay():
    scene = bounded().select([0])
    narrow = scene.images.image(0, (10, 10))[:, :9].reshape(-1, 4)
    mask = torch.ones(90, dtype=torch.bool)
    mask[0] = mask[8] = False
    cameras, offsets = replace(scene.cameras, size=torch.tensor([[9, 10]])), torch.tensor([0, 90])
    odd = replace(
        scene,
        cameras=cameras,
        images=replace(scene.images, pixels=narrow, offsets=offsets, mask=mask),
    )
    left, right = (mask_half(odd, left=side).valid_mask(0) for side in (True, False))
    assert (int(left.sum()), int(right.sum())) == (4 * 10 - 1, 5 * 10 - 1)
    assert not bool((left & right).any())


def test_views_are_evenly_spread():
    assert evenly_spaced_views(bounded(), 2).names == ("./view_0", "./view_2")
    assert len(evenly_spaced_views(bounded(), 9)) == 4


def test_adaptation_learns_and_leaves_the_start(source, run):
    start, (task,) = read_run(run).method, list_tasks(source, "test")
    before = {name: value.clone() for name, value in start.state_dict().items()}
    support, held_out = split_task(task, FEW)
    copy, looks = adapt_to_task(start, support, held_out, LOOP, seed=0, eval_steps=(0, 5, 12))
    assert sorted(looks) == [0, 5, 12]
    assert looks[0] == pytest.approx(mean_psnr(start, held_out))
    assert looks[12] == pytest.approx(mean_psnr(copy, held_out))
    assert looks[12] > looks[0] + 0.5
    assert all(torch.equal(value, before[name]) for name, value in start.state_dict().items())


def test_shuffled_starts_hold_the_same_numbers_in_disorder(run):
    start, scene = read_run(run).method, read_run(run).scenes["train"]
    other = shuffled_initialization(start, scene, 0)
    for name, value in initial_parameters(start).items():
        mixed = other.get_parameter(name)
        assert torch.equal(value.reshape(-1).sort().values, mixed.reshape(-1).sort().values)
        assert value.numel() < 4 or not torch.equal(value, mixed)


def test_matched_starts_show_the_same_with_other_weights(run, monkeypatch):
    monkeypatch.setattr(reference_initializations, "MATCHED_PSNR", 30.0)
    monkeypatch.setattr(reference_initializations, "MATCHING", InnerLoop(50, 128, Optimizer(kind="adam", lr=1e-2)))
    start, scene = read_run(run).method, read_run(run).scenes["train"]
    shown = with_rendered_images(start, scene)
    fresh = random_initialization(start, scene, 1)
    assert rendering_psnr(fresh, shown) < 25
    method = matched_initialization(start, scene, 1)
    assert rendering_psnr(method, shown) >= 30
    apart = [
        (value - method.get_parameter(name)).detach().abs().max() for name, value in initial_parameters(start).items()
    ]
    assert float(max(apart)) > 0.1


def test_matching_images_that_are_mostly_white_does_not_empty_the_network():
    """At a rate of 2e-3 it did: white is soon found everywhere, and where nothing is dense no gradient remains."""
    scene = bounded()
    pixels = torch.full((len(scene), 10, 10, 3), 255, dtype=torch.uint8)
    pixels[:, 4:6, 3:7] = torch.tensor([200, 40, 40], dtype=torch.uint8)
    shown = replace(scene, images=replace(scene.images, pixels=pixels.reshape(-1, 3)))
    torch.manual_seed(1)
    method = SimpleNerf(num_samples=16, hidden_dim=128, weight_init="normal").build(scene)
    run_inner_loop(method, [shown], reference_initializations.MATCHING, Rng(torch.Generator().manual_seed(1)))
    assert rendering_psnr(method, shown) > 30


def test_a_learned_start_is_scored_beside_the_others(run, capsys):
    main.main(["eval", str(run), "--initializations", "meta", "random", "shuffled", "--num-curve-views", "1"])
    out = run / "eval" / "test"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["n_images"] == 3
    rows = metrics["initializations"]
    assert list(rows) == ["meta", "random", "shuffled"]
    assert metrics["psnr"] == pytest.approx(rows["meta"]["psnr"])
    assert list(rows["meta"]["tasks"]) == ["e"]
    assert rows["meta"]["psnr"] > max(rows["random"]["psnr"], rows["shuffled"]["psnr"]) + 1
    assert rows["meta"]["psnr"] > rows["meta"]["before"] + 0.5
    assert [int(step) for step in rows["meta"]["curve"]] == [0, 1, 3, 10, 12]
    assert metrics["protocol"]["split_rule"].endswith("scores frames 3 to 5")
    assert "12 steps of adam, rate 0.005, 32 rays, on the first 2 images" in metrics["protocol"]["adaptation"]
    assert json.loads((out / "curves.json").read_text()) == rows
    assert (out / "curves.svg").read_text().count("<polyline") == 3
    assert "Final: meta" in (out / "report.html").read_text()
    assert (out / "e" / "002.png").is_file()
    assert f"meta initialization: {rows['meta']['before']:.2f} dB, adapted" in capsys.readouterr().out


def test_what_a_start_became_is_a_scene_to_render(run, tmp_path):
    main.main(["eval", str(run), "--save-adapted", "--no-save-images", "--adapt-steps", "4"])
    kept = read_run(run / "eval" / "test" / "e" / "scene")
    start = read_run(run).method
    assert len(kept.scenes["train"]) == 6
    assert kept.scenes["test"].names == ("003", "004", "005")
    assert any(
        not torch.equal(kept.method.get_parameter(name), value) for name, value in initial_parameters(start).items()
    )
    main.main(["render", str(kept.folder), "--num-frames", "2", "--out", str(tmp_path / "orbit.gif")])
    assert (tmp_path / "orbit.gif").is_file()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--num-support-images", "0"], "num_support_images: found 0"),
        (["--held-out-frames", "6", "9"], "held-out frames: found 6 to 9"),
        (["--initializations", "random"], "initializations: found random"),
        (["--right-half"], "run: run: found a meta-trained run"),
    ],
)
def test_a_protocol_that_cannot_be_applied_is_refused(run, capsys, options, sentence):
    assert sentence in refusal(capsys, "eval", run, *options)


def test_a_run_of_one_scene_does_not_adapt(source, tmp_path, capsys):
    given = f"train simple-nerf --data {source.data / 'e'} --out {tmp_path / 'run'} --steps 1 --device cpu --bf16 off"
    main.main([*given.split(), "--hidden-dim", "8", "--num-samples", "4"])
    said = refusal(capsys, "eval", tmp_path / "run", "--num-support-images", "2")
    assert "run: run: found a run of one scene" in said
