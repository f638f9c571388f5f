from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from lumifield.errors import DataError
from lumifield.fields import mlp
from lumifield.fields.encodings import Positional, positional
from lumifield.fields.mlp import Mlp, load_published


def published_state(width: int = 256, directions: int = 27) -> dict[str, Tensor]:
    """A state dict with the names and shapes of nerf_pl's two networks."""
    shapes = {f"xyz_encoding_{i}.0": (width, width) for i in range(1, 9)}
    shapes |= {
        "xyz_encoding_1.0": (width, 63),
        "xyz_encoding_5.0": (width, 63 + width),
        "xyz_encoding_final": (width, width),
        "dir_encoding.0": (width // 2, width + directions),
        "sigma": (1, width),
        "rgb.0": (3, width // 2),
    }
    generator = torch.Generator().manual_seed(0)
    state = {}
    for network in ("nerf_coarse", "nerf_fine"):
        for name, shape in shapes.items():
            state[f"{network}.{name}.weight"] = torch.randn(shape, generator=generator) / shape[1] ** 0.5
            state[f"{network}.{name}.bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return state


def slow_network(state: dict[str, Tensor], prefix: str, skip: int, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """The published network layer by layer, one point: raw density and color."""

    def layer(name: str, value: Tensor) -> Tensor:
        return state[f"{prefix}.{name}.weight"] @ value + state[f"{prefix}.{name}.bias"]

    position, direction = positional(x, 10), positional(d, 4)
    h = position
    for i in range(8):
        if i == skip:
            h = torch.cat([position, h])
        h = layer(f"xyz_encoding_{i + 1}.0", h).clamp_min(0)
    side = layer("dir_encoding.0", torch.cat([layer("xyz_encoding_final", h), direction])).clamp_min(0)
    return layer("sigma", h)[0], 1 / (1 + torch.exp(-layer("rgb.0", side)))


def rays(count: int = 3, samples: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(count, samples, 3, generator=generator)
    return points, torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)


@pytest.mark.parametrize("skip", [4, 5])
def test_parameter_count(skip: int):
    assert sum(p.numel() for p in Mlp(skip=skip).parameters()) == 595_844


@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("prefix", ["nerf_coarse", "nerf_fine"])
def test_published_weights_give_the_published_network(tmp_path: Path, prefix, activation):
    state = published_state()
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "epoch.ckpt")
    network = Mlp(skip=4, activation=activation)
    load_published(network, tmp_path / "epoch.ckpt", prefix)
    points, viewdirs = rays()
    density, rgb = network(points, network.directional(viewdirs)[:, None])
    for r in range(3):
        for i in range(5):
            raw, color = slow_network(state, prefix, 4, points[r, i], viewdirs[r])
            expected = raw.clamp_min(0) if activation == "relu" else torch.log1p(torch.exp(raw - 1))
            torch.testing.assert_close(density[r, i], expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(rgb[r, i], color, rtol=1e-4, atol=1e-5)


def test_the_papers_skip_is_one_layer_later():
    network = Mlp()
    assert [layer.in_features for layer in network.trunk] == [63, 256, 256, 256, 256, 319, 256, 256]


def test_density_alone_equals_density():
    network, (points, viewdirs) = Mlp(), rays()
    noise = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    for added in (None, noise):
        density, _ = network(points, network.directional(viewdirs)[:, None], added)
        torch.testing.assert_close(network.density_alone(points, added), density, rtol=0, atol=0)
    assert not torch.equal(network.density_alone(points, noise), network.density_alone(points))


def test_packed_points_equal_rows_of_points():
    network, (points, viewdirs) = Mlp(width=32), rays()
    view = network.directional(viewdirs)
    density, rgb = network(points, view[:, None])
    ray = torch.arange(3).repeat_interleave(5)
    flat_density, flat_rgb = network(points.reshape(-1, 3), view[ray])
    torch.testing.assert_close(flat_density, density.reshape(-1))
    torch.testing.assert_close(flat_rgb, rgb.reshape(-1, 3))


@pytest.mark.parametrize("chunk", [1, 7, 10])
def test_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch, chunk: int):
    network, (points, viewdirs) = Mlp(width=32), rays(7, 5)
    whole = network(points, network.directional(viewdirs)[:, None])
    monkeypatch.setattr(mlp, "CHUNK", chunk)
    parts = network(points, network.directional(viewdirs)[:, None])
    for name, a, b in zip(("density", "rgb"), whole, parts, strict=True):
        torch.testing.assert_close(a, b, msg=name)


@pytest.mark.parametrize("shape", [(0, 3), (0, 5, 3), (4, 0, 3)])
def test_no_points(shape: tuple[int, ...]):
    network = Mlp(width=16)
    points = torch.zeros(shape)
    view = network.directional(torch.zeros(*shape[:-1], 3)) if len(shape) == 2 else torch.zeros(shape[0], 1, 8)
    density, rgb = network(points, view)
    assert density.shape == shape[:-1]
    assert rgb.shape == shape
    assert network.density_alone(points).shape == shape[:-1]


def test_gradients():
    torch.manual_seed(0)
    network = Mlp(width=4, depth=3, skip=2, position=Positional(1), direction=Positional(1)).double()
    for layer in network.modules():
        if isinstance(layer, torch.nn.Linear):  # away from the kinks of relu
            torch.nn.init.normal_(layer.bias, 1.0)
    points, viewdirs = (part.double() for part in rays(2, 2))

    def output(*parameters: Tensor) -> tuple[Tensor, Tensor]:
        named = dict(zip(dict(network.named_parameters()), parameters, strict=True))
        view = torch.func.functional_call(Directional(network), {f"of.{k}": v for k, v in named.items()}, viewdirs)
        return torch.func.functional_call(network, named, (points, view[:, None]))

    parameters = [p.detach().requires_grad_() for p in network.parameters()]
    assert torch.autograd.gradcheck(output, parameters)


class Directional(torch.nn.Module):
    """`directional` as a module's forward, so that its parameters can be exchanged."""

    def __init__(self, of: Mlp):
        super().__init__()
        self.of = of

    def forward(self, viewdirs: Tensor) -> Tensor:
        return self.of.directional(viewdirs)


def test_bfloat16_is_close_and_comes_back_as_float32():
    network, (points, viewdirs) = Mlp(), rays(64, 4)
    exact = network(points, network.directional(viewdirs)[:, None])
    with torch.autocast("cpu", torch.bfloat16):
        half = network(points, network.directional(viewdirs)[:, None])
    for name, a, b in zip(("density", "rgb"), exact, half, strict=True):
        assert b.dtype == torch.float32, name
        assert 0 < float((a - b).detach().abs().mean()) < 0.02, name


def test_a_fresh_network_is_glorot_and_neither_dead_nor_opaque():
    torch.manual_seed(0)
    network = Mlp()
    assert all(bool((layer.bias == 0).all()) for layer in network.trunk)
    bound = (6 / (256 + 256)) ** 0.5
    weight = network.trunk[2].weight.detach()
    assert 0.99 * bound < float(weight.abs().max()) <= bound
    points, _ = rays(64, 8)
    density = network.density_alone(points.clamp(-1, 1)).detach()
    assert float(density.min()) > 0
    assert 0.1 < float(density.mean()) < 1


@pytest.mark.parametrize("activation", ["relu", "softplus"])
@pytest.mark.parametrize("magnitude", [-1e30, -1e4, 0.0, 1e4, 1e30])
def test_density_is_finite_and_never_negative(activation, magnitude: float):
    network = Mlp(width=8, activation=activation)
    torch.nn.init.zeros_(network.density.weight)
    torch.nn.init.constant_(network.density.bias, magnitude)
    density = network.density_alone(torch.zeros(1, 3))
    density.sum().backward()
    assert bool(torch.isfinite(density).all())
    assert float(density.detach().min()) >= 0
    assert network.density.bias.grad is not None
    assert bool(torch.isfinite(network.density.bias.grad).all())


@pytest.mark.parametrize(
    ("write", "name"), [(torch.save, "weights.ckpt"), (save_file, "weights.safetensors")], ids=["torch", "safetensors"]
)
def test_a_missing_tensor_is_named(tmp_path: Path, write: Callable, name: str):
    state = published_state()
    del state["nerf_fine.sigma.weight"]
    write(state, tmp_path / name)
    load_published(Mlp(skip=4), tmp_path / name, "nerf_coarse")
    with pytest.raises(DataError, match=r"without 'nerf_fine\.sigma\.weight', expected a tensor \[1, 256\]"):
        load_published(Mlp(skip=4), tmp_path / name, "nerf_fine")


def test_another_shape_is_named_and_nothing_is_loaded(tmp_path: Path):
    torch.save(published_state(), tmp_path / "weights.ckpt")
    network = Mlp()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(DataError, match=r"xyz_encoding_5\.0\.weight: found of shape \[256, 319\]"):
        load_published(network, tmp_path / "weights.ckpt", "nerf_fine")
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


class Stranger:
    """Something that a checkpoint must not bring along."""


@pytest.mark.parametrize("content", ["code", "noise", "list", "absent"])
@pytest.mark.parametrize("suffix", [".ckpt", ".safetensors"])
def test_other_files_are_refused(tmp_path: Path, content: str, suffix: str):
    path = tmp_path / f"weights{suffix}"
    if content == "code":
        torch.save({"state_dict": published_state(), "hparams": Stranger()}, path)
    elif content == "noise":
        path.write_bytes(b"no tensors here")
    elif content == "list":
        torch.save([1, 2], path)
    with pytest.raises(DataError, match="weights"):
        load_published(Mlp(skip=4), path, "nerf_fine")


def test_without_directions_color_comes_straight_from_the_trunk():
    network, (points, viewdirs) = Mlp(width=32, depth=2, direction=None), rays()
    view = network.directional(viewdirs)
    assert view.shape == (3, 0)
    density, rgb = network(points, view[:, None])
    hidden = network.hidden(points)
    torch.testing.assert_close(rgb, torch.sigmoid(network.color(hidden)))
    torch.testing.assert_close(density, network.density_alone(points))
    assert sum(p.numel() for p in network.parameters()) == 63 * 32 + 32 + 32 * 32 + 32 + 32 + 1 + 3 * 32 + 3


@pytest.mark.parametrize(("activation", "usual"), [("softplus", -1.0), ("relu", 0.0)])
def test_the_bias_moves_raw_densities(activation, usual):
    torch.manual_seed(0)
    network, (points, _) = Mlp(width=16, activation=activation), rays()
    before = network.density_alone(points)
    assert network.bias == usual
    network.bias = usual + 0.5
    with torch.no_grad():
        network.density.bias -= 0.5
    torch.testing.assert_close(network.density_alone(points), before)
