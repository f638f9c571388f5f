import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from commands import called, refusal
from lumifield.data.flow_pairs import ImagePair, list_pairs
from lumifield.errors import DataError
from lumifield.methods.nlr.image_based_appearance import ImageBasedAppearance
from lumifield.pretraining import NETWORKS, Pretrain
from lumifield.pretraining.train_features import (
    pair_loss,
    pixel_centers,
    pretrain_features,
    sample_tone,
    score_pairs,
    to_colors,
    warp_by_features,
)
from lumifield.runs import run_folder
from lumifield.runs.initialization import initialize_from
from lumifield.runtime.optical_flow import write_flow
from lumifield.runtime.rng import Rng
from lumifield.training import Train
from lumifield.training.job import TrainingJob, run_training
from scenes import NLR, ball, written

SHIFT = 3
SMALL = {name: getattr(NLR, name) for name in NETWORKS}


def pair(size: tuple[int, int] = (24, 32)) -> ImagePair:
    """A pattern, and the same moved to the left by `SHIFT` pixels; what comes in at the right is not visible."""
    height, width = size
    wide = np.random.default_rng(0).integers(0, 256, (height // 4 + 1, width // 4 + 3, 3), np.uint8)
    wide = np.asarray(Image.fromarray(wide).resize((width + SHIFT, height), Image.Resampling.BICUBIC))
    flow = torch.zeros(height, width, 2)
    flow[..., 0] = SHIFT
    visible = torch.arange(width).expand(height, width) < width - SHIFT
    source, target = (torch.from_numpy(np.ascontiguousarray(one)) for one in (wide[:, :width], wide[:, SHIFT:]))
    return ImagePair(source, target, flow, visible)


def write_pairs(folder, count: int = 2) -> None:
    """FlyingChairs' layout with forward flow: the first image is the target."""
    folder.mkdir(parents=True)
    for number in range(count):
        one = pair()
        Image.fromarray(one.target.numpy()).save(folder / f"{number:05d}_img1.ppm")
        Image.fromarray(one.source.numpy()).save(folder / f"{number:05d}_img2.ppm")
        write_flow(folder / f"{number:05d}_flow.flo", one.flow.numpy())


def net(**options) -> ImageBasedAppearance:
    torch.manual_seed(0)
    return ImageBasedAppearance(replace(NLR, **options))


@torch.no_grad()
def test_what_the_flow_leads_to_is_the_target_where_it_is_visible():
    one = pair()
    (view,) = warp_by_features(
        net(), to_colors(one.source), (pixel_centers(24, 32) + one.flow)[None], one.visible[None]
    )
    error = (view - to_colors(one.target)).abs().amax(0)
    assert float(error[one.visible].max()) < 1e-4
    assert float((view[:, ~one.visible] - 0.5).abs().max()) < 1e-6


@torch.no_grad()
def test_both_images_of_a_pair_are_seen_in_the_same_tones():
    one, rng = pair(), Rng(torch.Generator().manual_seed(3))
    still = replace(one, target=one.source, flow=torch.zeros_like(one.flow), visible=torch.ones_like(one.visible))
    for _ in range(4):
        assert float(pair_loss(net(), still, Pretrain(data=Path(), crop_size=24), rng)) < 1e-8


def test_tones_are_dark_and_bright_and_tinted():
    rng = Rng(torch.Generator().manual_seed(0))
    found = torch.stack([sample_tone(rng).flatten() for _ in range(400)])
    assert 0.25 < float(found.min()) < 0.4
    assert 2.7 < float(found.max()) < 4
    assert float((found > 1).float().mean()) == pytest.approx(0.5, abs=0.06)
    tint = found.amax(1) / found.amin(1)
    assert 1.4 < float(tint.max()) < 1.3**2 + 1e-5


def test_encoder_and_decoder_learn_the_target():
    network, settings = net(features="learned", feature_dim=8), Pretrain(data=Path(), crop_size=24, random_tones=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for step in range(80):
        objective = pair_loss(network, pair(), settings, Rng(torch.Generator().manual_seed(step % 4)))
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
        losses.append(float(objective.detach()))
    assert sum(losses[-4:]) < 0.6 * sum(losses[:4])


@torch.no_grad()
def test_images_shown_together_are_those_shown_alone():
    one, network = pair(), net(features="learned")
    where, visible = (
        torch.stack([pixel_centers(24, 32), pixel_centers(24, 32) + one.flow]),
        torch.stack([one.visible, one.visible]),
    )
    together = warp_by_features(network, to_colors(one.source), where, visible)
    alone = [warp_by_features(network, to_colors(one.source), where[[n]], visible[[n]])[0] for n in range(2)]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-5, rtol=1e-5)
    assert float(together.std()) > 0.1


def test_where_features_are_all_there_is_the_first_step_reaches_the_encoder():
    network = net(features="learned")
    assert network.encoder is not None
    pair_loss(network, pair(), Pretrain(data=Path(), crop_size=24), Rng(torch.Generator().manual_seed(0))).backward()
    assert all(bool(p.grad.any()) for name, p in network.encoder.named_parameters() if name.startswith("ups"))


@pytest.mark.parametrize("features", ["both", "learned"])
def test_encoder_and_decoder_are_told(features):
    network = net(features=features)
    assert network.encoder is not None
    assert network.decoder is not None
    torch.nn.init.constant_(network.decoder.out.weight, 0.1)
    pair_loss(network, pair(), Pretrain(data=Path(), crop_size=24), Rng(torch.Generator().manual_seed(0))).backward()
    for part in (network.encoder, network.decoder):
        assert any(p.grad is not None and bool(p.grad.any()) for p in part.parameters())


def test_autoencoding_can_be_left_out():
    network, settings = net(features="learned"), Pretrain(data=Path(), crop_size=16)
    with_it, without = (
        float(
            pair_loss(
                network, pair(), replace(settings, autoencode=own), Rng(torch.Generator().manual_seed(1))
            ).detach()
        )
        for own in (True, False)
    )
    assert without < with_it


def test_a_method_starts_strictly_from_the_pretrained_parts(tmp_path):
    write_pairs(tmp_path / "pairs")
    settings = Pretrain(
        data=tmp_path / "pairs", held_out=tmp_path / "pairs", steps=3, batch_size=1, crop_size=16, **SMALL
    )
    scores = pretrain_features(settings, tmp_path / "pre")
    assert scores["psnr_autoencoded"] > 20
    assert set(scores) == {"psnr_warped", "psnr_autoencoded"}
    assert json.loads((tmp_path / "pre" / run_folder.CONFIG).read_text())["scores"] == scores
    weights, _ = run_folder.read_tensors(tmp_path / "pre" / run_folder.WEIGHTS)
    torch.manual_seed(5)
    method = replace(NLR, init_parts=("encoder", "decoder")).build(ball(4, 10))
    before = {name: value.clone() for name, value in method.named_parameters()}
    initialize_from(method, tmp_path / "pre")
    for name, value in method.named_parameters():
        started = name.startswith(("appearance_net.encoder.", "appearance_net.decoder."))
        assert torch.equal(value, weights[name] if started else before[name])
    with pytest.raises(DataError, match="parameter 'sdf"):
        initialize_from(NLR.build(ball(4, 10)), tmp_path / "pre")
    assert run_folder.read_config(tmp_path / "pre").method == Pretrain(**SMALL, data=tmp_path).method
    settings, scene = replace(NLR, init_parts=("encoder", "decoder")), written(tmp_path / "ball")
    run_training(TrainingJob(settings, scene, Train(steps=1, init=tmp_path / "pre"), tmp_path / "run"))
    assert (tmp_path / "run" / run_folder.WEIGHTS).is_file()


def test_the_same_seed_gives_the_same_weights(tmp_path):
    write_pairs(tmp_path / "pairs")
    found = []
    for name in ("a", "b"):
        pretrain_features(Pretrain(data=tmp_path / "pairs", steps=2, crop_size=16, **SMALL), tmp_path / name)
        found.append(run_folder.read_tensors(tmp_path / name / run_folder.WEIGHTS)[0])
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.parametrize("half", [False, True])
def test_a_resumed_pretraining_equals_an_unbroken_one_bit_for_bit(half, tmp_path):
    write_pairs(tmp_path / "pairs")
    settings = Pretrain(
        data=tmp_path / "pairs", held_out=tmp_path / "pairs", steps=6, crop_size=16, half=half, save_every=2, **SMALL
    )

    def stop(state, _) -> None:
        state.stopped = state.step == 3

    scores = pretrain_features(settings, tmp_path / "whole")
    pretrain_features(settings, tmp_path / "parts", callbacks=[stop])
    assert run_folder.read_tensors(tmp_path / "parts" / run_folder.STATE)[1]["step"] == 3
    assert pretrain_features(settings, tmp_path / "parts", resume=True) == scores
    for name in (run_folder.WEIGHTS, run_folder.STATE):
        whole, parts = (run_folder.read_tensors(tmp_path / part / name)[0] for part in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert (tmp_path / "parts/config.json").read_bytes() == (tmp_path / "whole/config.json").read_bytes()


def test_a_pretraining_is_neither_overwritten_nor_resumed_with_other_networks(tmp_path, capsys):
    write_pairs(tmp_path / "pairs")
    settings = Pretrain(data=tmp_path / "pairs", steps=1, crop_size=16, **SMALL)
    pretrain_features(settings, tmp_path / "pre")
    command = ["pretrain-features", "--data", str(tmp_path / "pairs"), "--out", str(tmp_path / "pre")]
    assert "run folder: found an existing run" in refusal(capsys, *command)
    assert "feature_dim: found 4" in refusal(capsys, *command, "--resume", "--feature-dim", "12")
    called("pretrain-features", "--resume", "--out", tmp_path / "pre", "--steps", "2")
    assert run_folder.read_tensors(tmp_path / "pre" / run_folder.STATE)[1]["step"] == 2


def test_no_pairs_are_scored_where_none_are_held_out():
    assert score_pairs(net(), (), torch.device("cpu")) == {}


def test_what_cannot_be_pretrained_is_said(tmp_path, capsys):
    write_pairs(tmp_path / "pairs")
    command = ["pretrain-features", "--data", str(tmp_path / "pairs"), "--out", str(tmp_path / "pre")]
    said = refusal(capsys, *command, "--num-encoder-stages", "6")
    assert "encoder_stages: found 6" in said
    said = refusal(capsys, "pretrain-features", "--data", str(tmp_path), "--out", str(tmp_path / "pre"))
    assert "pairs: found missing" in said


def test_parameters_of_16_bits_are_those_that_are_scored(tmp_path):
    write_pairs(tmp_path / "pairs")
    settings = Pretrain(data=tmp_path / "pairs", held_out=tmp_path / "pairs", steps=2, half=True, crop_size=16, **SMALL)
    scores = pretrain_features(settings, tmp_path / "pre")
    weights, _ = run_folder.read_tensors(tmp_path / "pre" / run_folder.WEIGHTS)
    assert {value.dtype for value in weights.values()} == {torch.float16}
    method = settings.method.build(ball(4, 10))
    initialize_from(method, tmp_path / "pre")
    assert score_pairs(method.appearance_net, list_pairs(tmp_path / "pairs"), torch.device("cpu")) == pytest.approx(
        scores
    )
