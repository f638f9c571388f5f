"""NeRF's network: position and direction to density and color through eight layers."""

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
"""Added to raw densities: softplus acts on lowered ones, so that space starts thin but not dead (mip-NeRF, 3.1)."""
POSITION, DIRECTION = Positional(10), Positional(4)
CHUNK = 16_384
"""Samples in one pass on a CPU: as many as its caches serve well."""


class Mlp(nn.Module):
    """The network of NeRF's figure 7: `depth` layers, of which layer number `skip` (from 0) sees the position again.

    What it takes for a point is up to the encoding of `position`. Without `skip` no layer does. Without an encoding of
    `direction` colors are the same from everywhere. `bias` is added to raw densities (None: the activation's own, see
    `BIASES`).
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
        """Density and color at the points; `view` is `directional` of each point's ray.

        `noise` is added to the density before its activation.
        """
        weight, raw, color = self.joined_weight(), [], []
        for piece, beside in zip(pieces(points), view.split(piece_rows(points)), strict=True):
            hidden = self.hidden(piece)
            raw.append(self.density(hidden)[..., 0])
            color.append(self.raw_color(hidden, beside, weight))
        rgb = torch.sigmoid(torch.cat(color).to(points.dtype))
        return self.activated(torch.cat(raw).to(points.dtype), noise), rgb

    def joined_weight(self) -> Float[Tensor, "out width"] | None:
        """The feature layer and the layer after it as one product, of a third of the work: the first has no activation.

        None where colors have no branch of their own.
        """
        return None if self.direction is None else self._side_weights()[0] @ self.feature.weight

    def raw_color(
        self, hidden: Float[Tensor, "*s width"], beside: Float[Tensor, "*#s side"], weight: Tensor | None
    ) -> Float[Tensor, "*s 3"]:
        """Color before its activation, from the last layer of the trunk; `weight` is `joined_weight`."""
        seen = hidden if weight is None else F.relu(F.linear(hidden, weight) + beside.to(hidden.dtype))
        return self.color(seen)

    def density_alone(
        self, points: Float[Tensor, "*s c"], noise: Float[Tensor, "*s"] | None = None
    ) -> Float[Tensor, "*s"]:
        """Density at the points, without the color branch."""
        raw = torch.cat([self.density(self.hidden(piece))[..., 0] for piece in pieces(points)])
        return self.activated(raw.to(points.dtype), noise)

    def directional(self, viewdirs: Float[Tensor, "*r c"]) -> Float[Tensor, "*r side"]:
        """What the viewing direction adds to the color branch, to be computed once a ray; no column without one."""
        if self.direction is None:
            return viewdirs[..., :0]
        inner, outer = self._side_weights()
        bias = inner @ self.feature.bias + self.side.bias
        return F.linear(self.direction(viewdirs), outer, bias)

    def hidden(self, points: Float[Tensor, "*s c"]) -> Float[Tensor, "*s width"]:
        """The last layer of the trunk at the points."""
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
        """Density of raw density, noise added before."""
        raw = raw if noise is None else raw + noise
        return F.relu(raw + self.bias) if self.activation == "relu" else F.softplus(raw + self.bias)


def piece_rows(points: Float[Tensor, "*s c"]) -> int:
    """How many rows of points go through a network at once."""
    if points.device.type == "cpu":
        return max(CHUNK // max(points.shape[1:-1].numel(), 1), 1)
    return max(len(points), 1)


def pieces(points: Float[Tensor, "*s c"]) -> tuple[Tensor, ...]:
    """The points in rows that go through a network at once."""
    return points.split(piece_rows(points))


def load_published(network: Mlp, path: Path, prefix: Literal["nerf_coarse", "nerf_fine"]) -> None:
    """Fills a network from a published nerf_pl state dict (.safetensors, or a torch file, trainer state ignored).

    Raises DataError where the file cannot be read as plain tensors, or a tensor is missing or of another shape.
    """
    state = read_tensors(path)
    found = {}
    for name, own in network.state_dict().items():
        published = f"{prefix}.{_published_name(name)}"
        value = state.get(published)
        if not isinstance(value, Tensor):
            fix = "give a checkpoint of nerf_pl with this network"
            raise DataError(path, "the state dict", f"without '{published}'", f"a tensor {list(own.shape)}", fix)
        if value.shape != own.shape:
            fix = "build the method with the width, depth, octaves and early_skip of the checkpoint"
            raise DataError(path, published, f"of shape {list(value.shape)}", f"{list(own.shape)}", fix)
        found[name] = value
    network.load_state_dict(found)


def _published_name(name: str) -> str:
    """Our name of a parameter in the words of nerf_pl."""
    layer, kind = name.rsplit(".", 1)
    if layer.startswith("trunk."):
        return f"xyz_encoding_{int(layer.removeprefix('trunk.')) + 1}.0.{kind}"
    names = {"density": "sigma", "feature": "xyz_encoding_final", "side": "dir_encoding.0", "color": "rgb.0"}
    return f"{names[layer]}.{kind}"


def read_tensors(path: Path) -> dict[str, object]:
    """A state dict of a .safetensors or torch file, plain values alone; raises `DataError` where it is unreadable."""
    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, UnpicklingError, SafetensorError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        expected, fix = "a state dict of plain tensors", "export the weights alone and give that file"
        raise DataError(path, "the file", f"unreadable ({reason})", expected, fix) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    return state if isinstance(state, dict) else {}
