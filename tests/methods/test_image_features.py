import pytest
import torch
from safetensors.torch import save_file

from lumifield.errors import DataError
from lumifield.methods.nlr.image_features import Decoder, Encoder


def encoder(**options) -> Encoder:
    torch.manual_seed(0)
    made = Encoder(**({"stages": 3, "width": 8, "features": 6} | options))
    # Residual blocks start as what they pass by: let them do something.
    for name, parameter in made.named_parameters():
        if name.endswith("scale2.weight"):
            torch.nn.init.constant_(parameter, 0.5)
    return made


@torch.no_grad()
@pytest.mark.parametrize("stages", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [(32, 40), (17, 9), (1, 3)])
def test_every_pixel_of_images_of_any_size_has_features(stages, size, generator):
    made = encoder(stages=stages, width=4)
    found = made(torch.rand(2, 3, *size, generator=generator))
    assert found.shape == (2, 6, *size)
    assert found.isfinite().all()
    assert (found >= 0).all()


@torch.no_grad()
def test_a_crop_has_the_features_of_the_whole_but_near_its_border(generator):
    made, image = encoder(), torch.rand(1, 3, 160, 176, generator=generator)
    whole, crop = made(image), made(image[..., 16:152, 24:168])
    reach = 60
    inner, own = whole[..., 16 + reach : 152 - reach, 24 + reach : 168 - reach], crop[..., reach:-reach, reach:-reach]
    assert own.numel() > 0
    torch.testing.assert_close(own, inner, rtol=0.02, atol=1e-3)


@torch.no_grad()
def test_images_of_a_batch_and_modes_of_the_network_do_not_count(generator):
    made, images = encoder(), torch.rand(3, 3, 16, 16, generator=generator)
    alone = made.eval()(images[1:2])
    torch.testing.assert_close(made.train()(images)[1:2], alone, rtol=1e-4, atol=1e-5)


def test_every_parameter_of_the_encoder_learns(generator):
    made = encoder()
    made(torch.rand(1, 3, 24, 24, generator=generator)).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, name


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_fresh_decoder_adds_nothing_and_learns(depth, generator):
    torch.manual_seed(0)
    made = Decoder(5, depth=depth, width=4)
    features = torch.rand(2, 5, 13, 10, generator=generator)
    found = made(features)
    assert found.shape == (2, 3, 13, 10)
    assert torch.equal(found, torch.zeros_like(found))
    optimizer = torch.optim.Adam(made.parameters(), lr=1e-2)
    for _ in range(2):
        optimizer.zero_grad()
        (made(features) - 0.5).square().mean().backward()
        optimizer.step()
    for name, parameter in made.named_parameters():
        assert float(parameter.grad.abs().max()) > 0, name


def published(width: int = 8) -> dict[str, torch.Tensor]:
    """ResNet-18's first stages under torchvision's names."""
    generator = torch.Generator().manual_seed(1)
    state = {"conv1.weight": torch.randn(width, 3, 7, 7, generator=generator)}
    norms = {"bn1": width}
    for layer, (entry, channels) in {"layer1": (width, width), "layer2": (width, 2 * width)}.items():
        for block in range(2):
            first = entry if block == 0 else channels
            state[f"{layer}.{block}.conv1.weight"] = torch.randn(channels, first, 3, 3, generator=generator)
            state[f"{layer}.{block}.conv2.weight"] = torch.randn(channels, channels, 3, 3, generator=generator)
            norms |= {f"{layer}.{block}.bn1": channels, f"{layer}.{block}.bn2": channels}
    state["layer2.0.downsample.0.weight"] = torch.randn(2 * width, width, 1, 1, generator=generator)
    norms["layer2.0.downsample.1"] = 2 * width
    for name, channels in norms.items():
        for kind in ("weight", "bias", "running_mean", "running_var"):
            state[f"{name}.{kind}"] = torch.rand(channels, generator=generator) + 0.5
    return state


@torch.no_grad()
def test_imagenet_normalizations_are_frozen_into_scales(tmp_path, generator):
    state = published()
    save_file(state, tmp_path / "resnet18.safetensors")
    made = encoder()
    made.load_imagenet(tmp_path / "resnet18.safetensors")
    image = torch.rand(1, 3, 16, 16, generator=generator)
    inner = torch.nn.functional.conv2d(image, state["conv1.weight"], stride=2, padding=3)
    norm = [state[f"bn1.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")]
    expected = torch.relu(torch.nn.functional.batch_norm(inner, *norm))
    torch.testing.assert_close(made.stages[0](image), expected, rtol=1e-4, atol=1e-4)
    block = made.stages[2][1]
    assert torch.equal(block.conv2.weight, state["layer2.0.conv2.weight"])
    assert torch.equal(block.shortcut[0].weight, state["layer2.0.downsample.0.weight"])


def test_imagenet_weights_of_another_width_are_refused(tmp_path):
    save_file(published(4), tmp_path / "resnet18.safetensors")
    with pytest.raises(
        DataError, match=r"resnet18\.safetensors: weights of stages\.0\.0\.weight: found \[4, 3, 7, 7\]"
    ):
        encoder().load_imagenet(tmp_path / "resnet18.safetensors")
