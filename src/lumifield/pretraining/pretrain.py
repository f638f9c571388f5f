"""`pretrain-features`: an encoder and a decoder that show an image from the features of another that has moved.

The features of the source are looked up where the true flow leads, what is hidden there is left out, and the decoder
makes the target of them (MetaNLR++, section 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F

import lumifield
from lumifield.data.flying_chairs import Pair, PairFiles, pairs
from lumifield.errors import DataError
from lumifield.geometry.image_sampling import sample_bilinear
from lumifield.methods.nlr.appearance import GRAY, Appearance
from lumifield.optim.optimizers import build_optimizer, learning_rate_factor
from lumifield.pretraining import Pretrain
from lumifield.runs import run_folder
from lumifield.runs.driver import select_device
from lumifield.runtime.config import to_plain
from lumifield.runtime.image_metrics import psnr
from lumifield.runtime.rng import Rng
from lumifield.training.fit import Budget, TrainingClock

DEFAULT_MINUTES = 15.0
TOLD_EVERY = 100
PREFIX = "appearance_net."
"""Where `nlr` has the networks, so that it can start from the weights."""
DARKEST, TINT = 3.0, 1.3
"""The largest exponent of all channels, and that of one beside the others; the least are one over these."""


def pretrain(settings: Pretrain, out: Path, console: Console) -> dict[str, float]:
    """Trains the networks, writes a folder that `train nlr --init` takes, and returns the scores of held-out pairs."""
    if (out / run_folder.CONFIG).is_file():
        raise DataError(out, "run folder", "taken by a run", "a new folder", "choose another --out")
    method = settings.method
    known, unknown = pairs(settings.data), () if settings.held_out is None else pairs(settings.held_out)
    device = select_device(settings.device)
    torch.manual_seed(settings.seed)
    rng = Rng(torch.Generator().manual_seed(settings.seed))
    net = Appearance(method)
    if settings.imagenet is not None and net.encoder is not None:
        net.encoder.load_imagenet(settings.imagenet)
    net.to(device)
    trained(net, settings, known, rng, console)
    if settings.half:
        net.half().float()
    scores = scored(net, unknown, device)
    config = {
        "format": run_folder.FORMAT,
        "lumifield": lumifield.__version__,
        "method": {"kind": "nlr"} | to_plain(method),
        "pretrain": to_plain(settings),
        "scores": scores,
    }
    run_folder.write_json(out / run_folder.CONFIG, config)
    kind = torch.float16 if settings.half else torch.float32
    state = {
        PREFIX + name: value.to(kind) for name, value in net.state_dict().items() if not name.startswith("weights.")
    }
    run_folder.write_tensors(out / run_folder.WEIGHTS, state)
    return scores


def trained(net: Appearance, settings: Pretrain, known: Sequence[PairFiles], rng: Rng, console: Console) -> None:
    """Steps until the time is over."""
    parameters = [value for name, value in net.named_parameters() if not name.startswith("weights.")]
    optimizer = build_optimizer(settings.optimizer, [{"params": parameters}])
    unbounded = settings.steps is None and settings.minutes is None
    minutes = DEFAULT_MINUTES if unbounded else settings.minutes
    budget, clock, step = Budget(settings.steps, None if minutes is None else 60 * minutes), TrainingClock(), 0
    while (fraction := budget.fraction(step, clock.seconds)) < 1:
        optimizer.set_rate(learning_rate_factor(settings.schedule, fraction, step))
        chosen = rng.integers(settings.batch, len(known)).tolist()
        losses = [loss(net, known[index].read(), settings, rng) for index in chosen]
        objective = torch.stack(losses).mean()
        optimizer.zero_grad()
        objective.backward()
        optimizer.step()
        step += 1
        if step % TOLD_EVERY == 0:
            console.print(f"step {step}: loss {float(objective.detach()):.4f}, {clock.seconds:.0f} s", highlight=False)


def loss(net: Appearance, pair: Pair, settings: Pretrain, rng: Rng) -> Tensor:
    """The squared error of a square of the target, and of the same square of the source from its own features."""
    device = next(net.parameters()).device
    height, width = pair.flow.shape[:2]
    side = min(settings.crop, height, width)
    place = rng.uniform(1, 2)[0] * torch.tensor([height - side + 1, width - side + 1])
    rows, columns = (slice(int(first), int(first) + side) for first in place)
    places = grid(height, width)[rows, columns]
    source, target = image(pair.source), image(pair.target)
    if settings.tones:
        exponent = tone(rng)
        source, target = source**exponent, target**exponent
    squares, visible = [places + pair.flow[rows, columns]], [pair.visible[rows, columns]]
    truths = [target[:, rows, columns]]
    if settings.autoencode:
        squares.append(places)
        visible.append(torch.ones_like(visible[0]))
        truths.append(source[:, rows, columns])
    where, seen = torch.stack(squares).to(device), torch.stack(visible).to(device)
    views = shown(net, source.to(device), where, seen)
    return (views - torch.stack(truths).to(device)).square().mean((1, 2, 3)).sum()


def tone(rng: Rng) -> Float[Tensor, "3 1 1"]:
    """An exponent for each channel: one of them all, which makes images dark or bright, and a tint."""
    every, own = rng.uniform(1, 1), rng.uniform(1, 3)
    return (math.log(DARKEST) * (2 * every - 1) + math.log(TINT) * (2 * own - 1)).exp().view(3, 1, 1)


def shown(
    net: Appearance,
    source: Float[Tensor, "3 h w"],
    where: Float[Tensor, "n k l 2"],
    visible: Bool[Tensor, "n k l"],
) -> Float[Tensor, "n 3 k l"]:
    """Images whose pixels show what the source, encoded once, shows `where`, as far as it is visible."""
    places, seen = where.reshape(-1, 2), visible.reshape(-1)
    rgb = sample_bilinear(source, places)
    features = net.joined(rgb, net.looked_up(source, places, seen)) * seen[:, None]
    rgb = torch.where(seen[:, None], rgb, GRAY)
    rows = torch.arange(len(places), device=places.device)
    size = (where.shape[1], where.shape[2])
    return net.image(features, rgb, rows, size, len(places)).view(*where.shape[:3], 3).permute(0, 3, 1, 2)


@torch.no_grad()
def scored(net: Appearance, unknown: Sequence[PairFiles], device: torch.device) -> dict[str, float]:
    """Mean PSNR over pairs [dB]: the target from the source that is warped to it, and the source from itself."""
    found: dict[str, list[float]] = {"psnr_warped": [], "psnr_autoencoded": []}
    for files in unknown:
        pair = files.read()
        source, target, visible = image(pair.source).to(device), image(pair.target).to(device), pair.visible[None]
        places = grid(*pair.flow.shape[:2])[None]
        for name, truth, where, seen in (
            ("psnr_warped", target, places + pair.flow, visible),
            ("psnr_autoencoded", source, places, torch.ones_like(visible)),
        ):
            (view,) = shown(net, source, where.to(device), seen.to(device)).clamp(0, 1)
            found[name].append(psnr(float(F.mse_loss(view, truth))))
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def image(pixels: Tensor) -> Float[Tensor, "3 h w"]:
    """8-bit pixels as colors in [0, 1]."""
    return pixels.permute(2, 0, 1).float() / 255


def grid(height: int, width: int) -> Float[Tensor, "h w 2"]:
    """The centers of pixels, x first."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([column, row], -1) + 0.5
