"""The NeRF MLP: encoded position and direction to density and color."""

from __future__ import annotations

from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from lumifield.errors import DataError
from lumifield.fields.encodings import Encoding, Positional

Density = Literal["softplus", "relu"]
BIASES: dict[Density, float] = {"softplus": -1.0, "relu": 0.0}
"""Added to raw densities: with softplus a lower bias makes the initial density small (mip-NeRF, section 3.1)."""
POSITION, DIRECTION = Positional(10), Positional(4)
CHUNK = 16_384
"""Samples per pass on a CPU, so that activations fit its cache."""


class Mlp(nn.Module):
    """MLP of NeRF's figure 7 with `depth` layers; layer `skip` (from 0; None: no layer) takes the encoding again.

    `position` encodes points, or Gaussians of mip-NeRF. Without an encoding of `direction` colors do not depend on the
    view. `bias` is added to raw densities (None: that of the activation in `BIASES`).
    """

    def __init__(
        self,
        *,
        width: int = 256,
        depth: int = 8,
        skip: int | None = 5,
        position: Encoding = POSITION,
        direction: Encoding | None = DIRECTION,
        activation: Density = "softplus",
        bias: float | None = None,
    ) -> None:
        super().__init__()
        self.position, self.direction = position, direction
        self.skip, self.activation = skip, activation
        self.bias = BIASES[activation] if bias is None else bias
        entry = position.width
        inputs = [entry if i == 0 else width + entry if i == skip else width for i in range(depth)]
        self.trunk = nn.ModuleList([nn.Linear(channels, width) for channels in inputs])
        self.density = nn.Linear(width, 1)
        if direction is not None:
            self.feature = nn.Linear(width, width)
            self.side = nn.Linear(width + direction.width, width // 2)
        self.color = nn.Linear(width if direction is None else width // 2, 3)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(
        self,
        points: Float[Tensor, "*s c"],
        view: Float[Tensor, "*#s side"],
        noise: Float[Tensor, "*s"] | None = None,
    ) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s 3"]]:
        """Density and color at points; `view` is `directional` of the ray of each point.

        `noise` is added to raw densities.
        """
        weight, raw, color = self.joined_weight(), [], []
        for piece, view_features in zip(pieces(points), view.split(piece_rows(points)), strict=True):
            hidden = self.hidden(piece)
            raw.append(self.density(hidden)[..., 0])
            color.append(self.raw_color(hidden, view_features, weight))
        rgb = torch.sigmoid(torch.cat(color).to(points.dtype))
        return self.activated(torch.cat(raw).to(points.dtype), noise), rgb

    def joined_weight(self) -> Float[Tensor, "out width"] | None:
        """Product of the weights of the feature layer, which has no activation, and of the layer after it.

        It saves two thirds of the multiplications of both layers. None without directions.
        """
        return None if self.direction is None else self._side_weights()[0] @ self.feature.weight

    def raw_color(
        self, hidden: Float[Tensor, "*s width"], view_features: Float[Tensor, "*#s side"], weight: Tensor | None
    ) -> Float[Tensor, "*s 3"]:
        """Color before the sigmoid, from the last layer of the trunk; `weight` is `joined_weight`."""
        features = hidden if weight is None else F.relu(F.linear(hidden, weight) + view_features.to(hidden.dtype))
        return self.color(features)

    def density_alone(
        self, points: Float[Tensor, "*s c"], noise: Float[Tensor, "*s"] | None = None
    ) -> Float[Tensor, "*s"]:
        """Density at points, without evaluating colors."""
        raw = torch.cat([self.density(self.hidden(piece))[..., 0] for piece in pieces(points)])
        return self.activated(raw.to(points.dtype), noise)

    def directional(self, viewdirs: Float[Tensor, "*r c"]) -> Float[Tensor, "*r side"]:
        """Contribution of the viewing direction to the color branch, for each ray; empty without directions."""
        if self.direction is None:
            return viewdirs[..., :0]
        inner, outer = self._side_weights()
        bias = inner @ self.feature.bias + self.side.bias
        return F.linear(self.direction(viewdirs), outer, bias)

    def hidden(self, points: Float[Tensor, "*s c"]) -> Float[Tensor, "*s width"]:
        """Output of the trunk at points."""
        position = self.position(points)
        h = position
        for index, layer in enumerate(self.trunk):
            if index == self.skip:
                h = torch.cat([position.to(h.dtype), h], -1)
            h = F.relu(layer(h))
        return h

    def _side_weights(self) -> tuple[Tensor, Tensor]:
        width = self.feature.out_features
        return self.side.weight[:, :width], self.side.weight[:, width:]

    def activated(self, raw: Float[Tensor, "*s"], noise: Float[Tensor, "*s"] | None = None) -> Float[Tensor, "*s"]:
        """Density from raw density and noise."""
        raw = raw if noise is None else raw + noise
        return F.relu(raw + self.bias) if self.activation == "relu" else F.softplus(raw + self.bias)


def piece_rows(points: Float[Tensor, "*s c"]) -> int:
    """Rows of points per pass of a network."""
    if points.device.type == "cpu":
        return max(CHUNK // max(points.shape[1:-1].numel(), 1), 1)
    return max(len(points), 1)


def pieces(points: Float[Tensor, "*s c"]) -> tuple[Tensor, ...]:
    """Points split into the rows of each pass of a network."""
    return points.split(piece_rows(points))


def load_published(network: Mlp, path: Path, prefix: Literal["nerf_coarse", "nerf_fine"]) -> None:
    """Loads the parameters of a network from a nerf_pl checkpoint (.safetensors, or a torch file).

    Raises `DataError` if the file is not a state dict of tensors, or a tensor is missing or has another shape.
    """
    state = read_state_dict(path)
    found = {}
    for name, parameter in network.state_dict().items():
        published = f"{prefix}.{_published_name(name)}"
        value = state.get(published)
        if not isinstance(value, Tensor):
            fix = "give a checkpoint of nerf_pl with this network"
            raise DataError(path, "the state dict", f"without '{published}'", f"a tensor {list(parameter.shape)}", fix)
        if value.shape != parameter.shape:
            fix = "use the hidden_dim, num_layers, number of frequencies and early_skip of the checkpoint"
            raise DataError(path, published, f"of shape {list(value.shape)}", f"{list(parameter.shape)}", fix)
        found[name] = value
    network.load_state_dict(found)


def _published_name(name: str) -> str:
    """Name of a parameter in checkpoints of nerf_pl."""
    layer, kind = name.rsplit(".", 1)
    if layer.startswith("trunk."):
        return f"xyz_encoding_{int(layer.removeprefix('trunk.')) + 1}.0.{kind}"
    names = {"density": "sigma", "feature": "xyz_encoding_final", "side": "dir_encoding.0", "color": "rgb.0"}
    return f"{names[layer]}.{kind}"


def read_state_dict(path: Path) -> dict[str, object]:
    """State dict of a .safetensors or torch file, without other objects; raises `DataError` if it is unreadable."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        expected, fix = "a state dict of tensors", "save the state dict without other objects"
        raise DataError(path, "the file", f"unreadable ({reason})", expected, fix) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    return state if isinstance(state, dict) else {}
