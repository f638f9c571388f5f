"""Per-pixel image features and decoding of blended features (NLR++, after Stable View Synthesis).

No normalization depends on a batch or an image: except near its border, a crop has the features of the whole image.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from lumifield.errors import DataError
from lumifield.fields.mlp import read_state_dict

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
EPSILON = 1e-5


class ChannelScaling(nn.Module):
    """Scale and offset per channel: a batch normalization with frozen statistics."""

    def __init__(self, channels: int, factor: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), factor))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Scaled channels."""
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class ResidualBlock(nn.Module):
    """Basic residual block (He et al. 2016), initialized as the identity."""

    def __init__(self, entry: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entry, width, 3, stride, padding=1, bias=False)
        self.scale1 = ChannelScaling(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.scale2 = ChannelScaling(width, 0.0)
        self.shortcut = nn.Identity()
        if stride > 1 or entry != width:
            self.shortcut = nn.Sequential(nn.Conv2d(entry, width, 1, stride, bias=False), ChannelScaling(width))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d k l"]:
        """Output of the block, of half the size with a stride of 2."""
        inner = F.relu(self.scale1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.scale2(self.conv2(inner)))


class Encoder(nn.Module):
    """Image features at full resolution: the first `stages` of a ResNet-18 and an upsampling path.

    `width` is that of the first stage, 64 in the paper.
    """

    def __init__(self, *, stages: int = 3, width: int = 64, features: int = 16) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 4 * width, 8 * width][:stages]
        self.full = convolutions(3, width)
        first = nn.Sequential(nn.Conv2d(3, width, 7, 2, padding=3, bias=False), ChannelScaling(width), nn.ReLU())
        self.stages = nn.ModuleList([first])
        for number, (entry, channels) in enumerate(pairwise(widths)):
            down = nn.MaxPool2d(3, 2, padding=1) if number == 0 else nn.Identity()
            blocks = ResidualBlock(entry, channels, 1 if number == 0 else 2), ResidualBlock(channels, channels)
            self.stages.append(nn.Sequential(down, *blocks))
        self.skips = nn.ModuleList([nn.Conv2d(channels, channels, 1) for channels in widths])
        outs = [features, *widths[:-1]]
        skip_channels = [width, *widths[:-1]]
        rows = zip(widths, skip_channels, outs, strict=True)
        self.ups = nn.ModuleList([nn.Conv2d(below + skip, out, 3, padding=1) for below, skip, out in rows])
        self.multiple = 2**stages
        initialize_weights(self)

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n features h w"]:
        """Non-negative features of images in [0, 1]."""
        mean, deviation = (torch.tensor(v, device=images.device)[:, None, None] for v in (MEAN, DEVIATION))
        x, size = pad_to_multiple((images - mean) / deviation, self.multiple)
        skips, inner = [self.full(x)], x
        for stage, skip in zip(self.stages, self.skips, strict=True):
            inner = stage(inner)
            skips.append(F.relu(skip(inner)))
        features = skips.pop()
        for up in reversed(self.ups):
            features = F.relu(up(torch.cat([upsample_twice(features), skips.pop()], 1)))
        return features[..., : size[0], : size[1]]

    def load_imagenet(self, path: Path) -> None:
        """Loads the convolutions of torchvision's ResNet-18 (a state dict), with normalizations folded in.

        Raises `DataError` if their sizes do not match this encoder.
        """
        state = _plain_tensors(path)
        own = self.state_dict()
        for name in [name for name in own if name.startswith("stages.")]:
            value = _published(state, name)
            if value is None or value.shape != own[name].shape:
                found = "missing" if value is None else str(list(value.shape))
                fix = "use the weights of torchvision's resnet18 with --encoder-width 64"
                raise DataError(path, f"weights of {name}", found, str(list(own[name].shape)), fix)
            own[name] = value
        self.load_state_dict(own)


class Decoder(nn.Module):
    """Residual image from blended features: a U-Net with `depth` downsampling levels.

    Initially zero, or random unless `blank`: if the output is all there is to see, a zero initialization keeps all
    other layers from learning.
    """

    def __init__(self, entry: int, *, depth: int = 2, width: int = 64, blank: bool = True) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.downs = nn.ModuleList([convolutions(a, b) for a, b in pairwise([entry, *widths])])
        self.skips = nn.ModuleList([nn.Conv2d(channels, channels, 1) for channels in widths])
        self.ups = nn.ModuleList([convolutions(below + above, above) for above, below in pairwise(widths)])
        self.out = nn.Conv2d(width, 3, 1)
        self.multiple = 2**depth
        initialize_weights(self)
        nn.init.normal_(self.out.weight, 0.0, 0.0 if blank else width**0.5 / 2)

    def forward(self, features: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 h w"]:
        """Residual colors."""
        x, size = pad_to_multiple(features, self.multiple)
        levels = []
        for number, (down, skip) in enumerate(zip(self.downs, self.skips, strict=True)):
            x = down(x if number == 0 else F.avg_pool2d(x, 2))
            levels.append(skip(x))
        found = levels.pop()
        for up in reversed(self.ups):
            found = up(torch.cat([upsample_twice(found), levels.pop()], 1))
        # The mean over channels makes the effect of an optimizer step on colors independent of the width.
        return self.out(found / self.out.in_channels)[..., : size[0], : size[1]]


def convolutions(entry: int, width: int) -> nn.Sequential:
    """Two 3 x 3 convolutions with ReLU."""
    first, second = nn.Conv2d(entry, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU())


def upsample_twice(x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h2 w2"]:
    """Bilinear upsampling by 2 aligned to pixel areas, so that crops are not shifted."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def pad_to_multiple(x: Float[Tensor, "n c h w"], multiple: int) -> tuple[Float[Tensor, "n c h2 w2"], tuple[int, int]]:
    """Images padded to multiples by replication, and their original size."""
    height, width = x.shape[-2:]
    down, right = -height % multiple, -width % multiple
    x = F.pad(x, (0, right, 0, down), mode="replicate") if down or right else x
    return x.contiguous(memory_format=torch.channels_last), (height, width)


def initialize_weights(network: nn.Module) -> None:
    """He initialization (He et al. 2015) with zero biases."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def _published(state: dict[str, Tensor], name: str) -> Tensor | None:
    """Parameter of the stages from a torchvision ResNet-18."""
    _, stage, rest = name.split(".", 2)
    if stage == "0":
        layer = {"0": "conv1", "1": "bn1"}[rest.split(".")[0]]
    else:
        number, inner = rest.split(".", 1)
        parts = {"scale1": "bn1", "scale2": "bn2", "shortcut.0": "downsample.0", "shortcut.1": "downsample.1"}
        part = inner.rsplit(".", 1)[0]
        layer = f"layer{stage}.{int(number) - 1}.{parts.get(part, part)}"
    kind = name.rsplit(".", 1)[1]
    if f"{layer}.running_var" not in state:
        return state.get(f"{layer}.{kind}")
    factor = state[f"{layer}.weight"] / (state[f"{layer}.running_var"] + EPSILON).sqrt()
    return factor if kind == "weight" else state[f"{layer}.bias"] - state[f"{layer}.running_mean"] * factor


def _plain_tensors(path: Path) -> dict[str, Tensor]:
    return {name: value for name, value in read_state_dict(path).items() if isinstance(value, Tensor)}
