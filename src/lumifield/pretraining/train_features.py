"""Pre-training of encoder and decoder: reconstruct an image from the features of another, warped by optical flow.

Features of the source are sampled where the ground truth flow points, occluded pixels are left out, and the decoder
reconstructs the target (MetaNLR++, section 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from rich.console import Console
from torch import Tensor
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from lumifield.data.flow_pairs import ImagePair, PairFiles, list_pairs
from lumifield.geometry.image_sampling import sample_bilinear
from lumifield.methods.nlr.image_based_appearance import GRAY, ImageBasedAppearance
from lumifield.optim.optimizers import build_optimizer, learning_rate_factor
from lumifield.pretraining import Pretrain
from lumifield.runs import run_folder
from lumifield.runs.checkpoint import StateSaver
from lumifield.runs.driver import RunDriver
from lumifield.runs.run_config import RunConfig
from lumifield.runs.state import Budget, RunState, remaining_steps
from lumifield.runtime.image_metrics import psnr
from lumifield.runtime.rng import Rng

PretrainingState = RunState[ImageBasedAppearance]

DEFAULT_MINUTES = 15.0
PRINT_EVERY = 100
PREFIX = "appearance_net."
"""Module of `nlr` that holds the networks, so that it can be initialized from the weights."""
MAX_GAMMA, TINT = 3.0, 1.3
"""Maximum common and per-channel gamma; the minima are their inverses."""


def pretrain_features(
    settings: Pretrain,
    out: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    callbacks: Sequence[Callable[[PretrainingState, float], None]] = (),
) -> dict[str, float]:
    """Trains the networks, writes a folder for `train nlr --init`, and returns the scores of held-out pairs.

    Ctrl-C stops after the current step with everything saved. Raises `DataError` for unusable data or settings.
    """
    config = RunConfig.of_training(settings.method, None, "pretrain", settings)
    driver = RunDriver(out, config, device=settings.device, resume=resume, console=console)
    pairs = list_pairs(settings.data)
    held_out = () if settings.held_out is None else list_pairs(settings.held_out)
    state = initialize_networks(settings, driver)
    driver.start(state, settings.method, dict)
    with driver.record(state) as writer:
        monitor, saver = LossMonitor(writer, driver.print), StateSaver(out, settings.save_every)
        train_networks(state, settings, pairs, [monitor, saver, *callbacks])
        saver.save(state)
    net = state.method
    if settings.half:
        net.half().float()
    scores = score_pairs(net, held_out, driver.device)
    replace(config, scores=scores).write(out)
    write_networks(net, out / run_folder.WEIGHTS, torch.float16 if settings.half else torch.float32)
    return scores


def initialize_networks(settings: Pretrain, driver: RunDriver) -> PretrainingState:
    """Networks with random parameters, or an encoder of published weights, and their optimizer at step 0."""
    torch.manual_seed(settings.seed)
    net = ImageBasedAppearance(settings.method)
    if settings.imagenet_weights is not None and net.encoder is not None and not driver.resumes:
        net.encoder.load_imagenet(settings.imagenet_weights)
    net.to(driver.device)
    parameters = [value for name, value in net.named_parameters() if not name.startswith("weights.")]
    rng = Rng(torch.Generator().manual_seed(settings.seed))
    return RunState(net, build_optimizer(settings.optimizer, [{"params": parameters}]), rng)


def train_networks(
    state: PretrainingState,
    settings: Pretrain,
    pairs: Sequence[PairFiles],
    callbacks: Sequence[Callable[[PretrainingState, float], None]] = (),
) -> None:
    """Training steps until the budget is spent or the run is stopped; callbacks receive the loss of each."""
    budget = Budget.of(settings.steps, settings.minutes, default_minutes=DEFAULT_MINUTES)
    for fraction in remaining_steps(state, budget):
        state.optimizer.set_rate(learning_rate_factor(settings.schedule, fraction, state.step))
        chosen = state.rng.integers(settings.batch_size, len(pairs)).tolist()
        losses = [pair_loss(state.method, pairs[index].read(), settings, state.rng) for index in chosen]
        objective = torch.stack(losses).mean()
        state.optimizer.zero_grad()
        objective.backward()
        state.optimizer.step()
        state.step += 1
        for callback in callbacks:
            callback(state, float(objective.detach()))


class LossMonitor:
    """Prints and records the loss."""

    def __init__(self, writer: SummaryWriter, print_line: Callable[[str], None]) -> None:
        self._writer, self._print = writer, print_line

    def __call__(self, state: PretrainingState, loss: float) -> None:
        """Records the loss of a step if it is due."""
        if state.step % PRINT_EVERY == 0:
            self._writer.add_scalar("train/loss", loss, state.step)
            self._print(f"step {state.step}: loss {loss:.4f}, {state.clock.seconds:.0f} s")


def write_networks(net: ImageBasedAppearance, file: Path, dtype: torch.dtype) -> None:
    """Writes encoder and decoder under their names in `nlr`."""
    state = net.state_dict().items()
    run_folder.write_tensors(
        file, {PREFIX + name: value.to(dtype) for name, value in state if not name.startswith("weights.")}
    )


def pair_loss(net: ImageBasedAppearance, pair: ImagePair, settings: Pretrain, rng: Rng) -> Tensor:
    """Squared error of a crop of the target, and of the same crop of the source from its own features."""
    device = next(net.parameters()).device
    height, width = pair.flow.shape[:2]
    side = min(settings.crop_size, height, width)
    place = rng.uniform(1, 2)[0] * torch.tensor([height - side + 1, width - side + 1])
    rows, columns = (slice(int(first), int(first) + side) for first in place)
    places = pixel_centers(height, width)[rows, columns]
    source, target = to_colors(pair.source), to_colors(pair.target)
    if settings.random_tones:
        exponent = sample_tone(rng)
        source, target = source**exponent, target**exponent
    squares, visible = [places + pair.flow[rows, columns]], [pair.visible[rows, columns]]
    ground_truths = [target[:, rows, columns]]
    if settings.autoencode:
        squares.append(places)
        visible.append(torch.ones_like(visible[0]))
        ground_truths.append(source[:, rows, columns])
    where, seen = torch.stack(squares).to(device), torch.stack(visible).to(device)
    views = warp_by_features(net, source.to(device), where, seen)
    return (views - torch.stack(ground_truths).to(device)).square().mean((1, 2, 3)).sum()


def sample_tone(rng: Rng) -> Float[Tensor, "3 1 1"]:
    """Gamma per channel: a common factor and a tint."""
    every, own = rng.uniform(1, 1), rng.uniform(1, 3)
    return (math.log(MAX_GAMMA) * (2 * every - 1) + math.log(TINT) * (2 * own - 1)).exp().view(3, 1, 1)


def warp_by_features(
    net: ImageBasedAppearance,
    source: Float[Tensor, "3 h w"],
    where: Float[Tensor, "n k l 2"],
    visible: Bool[Tensor, "n k l"],
) -> Float[Tensor, "n 3 k l"]:
    """Images whose pixels show the source, encoded once, at positions `where`, if visible."""
    places, seen = where.reshape(-1, 2), visible.reshape(-1)
    rgb = sample_bilinear(source, places)
    features = net.concatenate_features(rgb, net.sample_features(source, places, seen)) * seen[:, None]
    rgb = torch.where(seen[:, None], rgb, GRAY)
    rows = torch.arange(len(places), device=places.device)
    size = (where.shape[1], where.shape[2])
    return net.image(features, rgb, rows, size, len(places)).view(*where.shape[:3], 3).permute(0, 3, 1, 2)


@torch.no_grad()
def score_pairs(net: ImageBasedAppearance, held_out: Sequence[PairFiles], device: torch.device) -> dict[str, float]:
    """Mean PSNR over pairs [dB]: target from warped source, and source from itself."""
    found: dict[str, list[float]] = {"psnr_warped": [], "psnr_autoencoded": []}
    for files in held_out:
        pair = files.read()
        source, target, visible = (
            to_colors(pair.source).to(device),
            to_colors(pair.target).to(device),
            pair.visible[None],
        )
        places = pixel_centers(*pair.flow.shape[:2])[None]
        for name, ground_truth, where, seen in (
            ("psnr_warped", target, places + pair.flow, visible),
            ("psnr_autoencoded", source, places, torch.ones_like(visible)),
        ):
            (view,) = warp_by_features(net, source, where.to(device), seen.to(device)).clamp(0, 1)
            found[name].append(psnr(float(F.mse_loss(view, ground_truth))))
    return {name: sum(values) / len(values) for name, values in found.items() if values}


def to_colors(pixels: Tensor) -> Float[Tensor, "3 h w"]:
    """8-bit pixels as colors in [0, 1]."""
    return pixels.permute(2, 0, 1).float() / 255


def pixel_centers(height: int, width: int) -> Float[Tensor, "h w 2"]:
    """Pixel centers, x first."""
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([column, row], -1) + 0.5
