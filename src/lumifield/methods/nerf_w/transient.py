"""Transient density, color and uncertainty, and their compositing with the static scene (NeRF-W, section 4.2)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lumifield import kernels
from lumifield.data.scene import Batch
from lumifield.methods.base import RenderContext, Rendered, TrainingContext, Traits
from lumifield.methods.nerf_w import NerfW

MIN_OPTICAL_DEPTH = 1e-12
CHANNELS = ("static", "transient", "combined", "uncertainty")


@dataclass(frozen=True)
class TransientSamples:
    """Transient density, color and uncertainty of samples."""

    density: Float[Tensor, " s"]
    rgb: Float[Tensor, "s 3"]
    uncertainty: Float[Tensor, " s"]


@dataclass(frozen=True)
class Mixture:
    """Samples with static and transient density, `width` long; ray r owns rows `offsets[r]:offsets[r + 1]`."""

    density: Float[Tensor, " s"]
    rgb: Float[Tensor, "s 3"]
    transient: TransientSamples
    width: Float[Tensor, " s"]
    offsets: Int[Tensor, " r_plus_1"]


class TransientHead(nn.Module):
    """Transient density, color and uncertainty from the features of a sample and the embedding of its image."""

    def __init__(self, inputs: int, width: int, depth: int) -> None:
        super().__init__()
        sizes = [inputs, *[width] * depth]
        layers = [part for a, b in itertools.pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.Linear(width, 5)

    def forward(self, features: Float[Tensor, "*s f"], code: Float[Tensor, "*#s t"]) -> Float[Tensor, "*s 5"]:
        """Raw outputs of samples, for `activate_raw`."""
        code = code.expand(*features.shape[:-1], code.shape[-1]).to(features.dtype)
        return self.heads(self.trunk(torch.cat([code, features], -1)))


def activate_raw(raw: Float[Tensor, "s 5"]) -> TransientSamples:
    """Density, color and uncertainty from raw outputs."""
    return TransientSamples(F.softplus(raw[:, 0]), torch.sigmoid(raw[:, 1:4]), F.softplus(raw[:, 4]))


class Embeddings(nn.Module):
    """Appearance and transient embeddings of all images in one table."""

    def __init__(self, settings: NerfW, num_images: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(num_images, settings.appearance_dim + settings.transient_dim))
        self.appearance = settings.appearance_dim

    def forward(
        self, image: Int[Tensor, " r"], context: RenderContext
    ) -> tuple[Float[Tensor, "r a"], Float[Tensor, "r t"]]:
        """Appearance and transient embedding of each ray: that of the context, else of its image in training."""
        if context.appearance_embedding is not None:
            return self.parts(context.appearance_embedding.expand(len(image), -1))
        return self.parts(self.table[image]) if isinstance(context, TrainingContext) else self.mean(len(image))

    def mean(self, rows: int) -> tuple[Float[Tensor, "{rows} a"], Float[Tensor, "{rows} t"]]:
        """Mean embedding, repeated in rows."""
        return self.parts(self.table.mean(0).expand(rows, -1))

    def parts(self, rows: Float[Tensor, "r e"]) -> tuple[Float[Tensor, "r a"], Float[Tensor, "r t"]]:
        """Appearance and transient part of embeddings."""
        return rows[:, : self.appearance], rows[:, self.appearance :]


def nerf_w_traits(settings: NerfW) -> Traits:
    """Traits of either backbone."""
    return Traits(CHANNELS if settings.transient_dim else (), num_appearance_dims=settings.appearance_dim)


def renders_transient(settings: NerfW, context: RenderContext) -> bool:
    """Whether a pass renders transients: in training, or if one of their channels is requested."""
    learning = isinstance(context, TrainingContext) and context.appearance_embedding is None
    return settings.transient_dim > 0 and (learning or bool(context.channels))


def static_and_transient_weights(
    static: Float[Tensor, " s"], transient: Float[Tensor, " s"], offsets: Int[Tensor, " r_plus_1"]
) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"], Float[Tensor, " s"]]:
    """Weights of static and transient samples, and of both together (NeRF-W, equations 8 and 9).

    `w_i = T_i (1 - exp(-tau_i))` for each, with T_i = exp(-sum of both optical depths before i).
    """
    weights = kernels.packed_weights(static + transient, offsets)
    transmittance = weights / (-torch.expm1(-(static + transient))).clamp_min(MIN_OPTICAL_DEPTH)
    return -torch.expm1(-static) * transmittance, -torch.expm1(-transient) * transmittance, weights


def composite_transient(rendered: Rendered, mixture: Mixture, settings: NerfW, context: RenderContext) -> Rendered:
    """Static rendering with transients: as channels, and in training as the color of a ray.

    The combined color is `sum_i w_i c_i`, the uncertainty `beta_min + sum_i w_i beta_i` over transient samples.
    """
    transient, width = mixture.transient, mixture.width
    static_weights, transient_weights, weights = static_and_transient_weights(
        mixture.density * width, transient.density * width, mixture.offsets
    )
    parts = (
        static_weights[:, None] * mixture.rgb,
        transient_weights[:, None] * transient.rgb,
        (transient_weights * transient.uncertainty)[:, None],
        weights[:, None],
    )
    static_rgb, transient_rgb, uncertainty, opacity = kernels.segment_sum(torch.cat(parts, -1), mixture.offsets).split(
        (3, 3, 1, 1), -1
    )
    channels = {
        "static": rendered.rgb,
        "transient": transient_rgb,
        "combined": static_rgb + transient_rgb + (1 - opacity) * context.background,
        "uncertainty": settings.beta_min + uncertainty[:, 0],
    }
    loss = settings.transient_loss_weight * transient.density.sum() / max(transient.density.numel(), 1)
    return with_transient(rendered, channels, loss, context)


def with_transient(rendered: Rendered, channels: dict[str, Tensor], loss: Tensor, context: RenderContext) -> Rendered:
    """The rendering with the requested channels, or in training with the combined color."""
    if not isinstance(context, TrainingContext):
        return replace(rendered, channels={name: channels[name] for name in context.channels})
    penalties = {**rendered.penalties, "transient": loss}
    return replace(rendered, rgb=channels["combined"], channels=channels, penalties=penalties)


def nerf_w_losses(rendered: Rendered, batch: Batch, settings: NerfW) -> dict[str, Tensor]:
    """`1/2 |C - c|^2 / beta^2 + ln(beta / beta_min)` of the last pass, `1/2 |C - c|^2` of the others (equation 13)."""
    error = (rendered.rgb - batch.rgb).square().mean(-1)
    uncertainty = rendered.channels.get("uncertainty") if settings.uncertainty else None
    if uncertainty is None:
        found = {"rgb": error.mean()}
    else:
        found = {
            "rgb": 0.5 * (error / uncertainty.square()).mean(),
            "uncertainty": torch.log(uncertainty / settings.beta_min).mean(),
        }
    if rendered.coarse:
        found["coarse"] = 0.5 * torch.stack([F.mse_loss(rgb, batch.rgb) for rgb in rendered.coarse]).sum()
    return {**found, **rendered.penalties}
