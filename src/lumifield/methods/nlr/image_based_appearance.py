"""Image-based appearance: per-pixel features, blended over the source views that see a point, decoded to an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lumifield.fields.encodings import positional, positional_width
from lumifield.geometry.image_sampling import bounding_window, sample_bilinear
from lumifield.methods.nlr import Nlr
from lumifield.methods.nlr.blending import LearnedWeights, angle_weights, normalize_weights
from lumifield.methods.nlr.image_features import Decoder, Encoder
from lumifield.methods.nlr.source_views import ProjectedSample, SourceViews
from lumifield.methods.nlr.sphere_tracing import RaySegments
from lumifield.runtime.colormaps import sinebow
from lumifield.runtime.precision import autocast

MARGIN = 16
"""Margin around sampled pixels that is encoded as well [pixels]."""
GRAY = 0.5
"""Color of points that no source view sees, before decoding."""
OCTAVES, HIDDEN = 4, 64


@dataclass(frozen=True)
class BlendedSamples:
    """Blended features and colors of points, and the weight of each source view."""

    features: Float[Tensor, "p c"]
    rgb: Float[Tensor, "p 3"]
    share: Float[Tensor, "n p"]

    def by_source(self) -> Float[Tensor, "p 3"]:
        """A color per source view, mixed by weight; black where no view contributes."""
        count = len(self.share)
        hues = sinebow(torch.arange(count, device=self.share.device) / count)
        return self.share.T @ hues


class ImageBasedAppearance(nn.Module):
    """Encoder, blending weights and decoder, as configured."""

    def __init__(self, settings: Nlr) -> None:
        super().__init__()
        self.settings = settings
        entry = {"both": 3 + settings.feature_dim, "learned": settings.feature_dim, "rgb": 3}[settings.features]
        self.encoder = self.decoder = self.weights = None
        if settings.features != "rgb":
            stages, width = settings.num_encoder_stages, settings.encoder_width
            self.encoder = Encoder(stages=stages, width=width, features=settings.feature_dim)
            depth, width, blank = settings.num_decoder_levels, settings.decoder_width, settings.features == "both"
            self.decoder = Decoder(entry, depth=depth, width=width, blank=blank)
        if settings.blending == "learned":
            self.weights = LearnedWeights(entry)

    @torch.no_grad()
    def feature_maps(self, sources: SourceViews) -> list[Float[Tensor, "c _ _"]]:
        """Feature maps of all source views; empty if only colors are blended."""
        if self.encoder is None:
            return []
        return [self.encode_image(sources.image(index)[:3]) for index in range(len(sources))]

    def encode_image(self, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "c h w"]:
        """Features of an image."""
        assert self.encoder is not None
        with autocast(image.device, self.settings.bf16):
            return self.encoder(image[None])[0].float()

    def blend_sources(
        self,
        projected: dict[int, ProjectedSample],
        sources: SourceViews,
        directions: Float[Tensor, "p 3"],
        feature_maps: list[Float[Tensor, "c _ _"]] | None,
    ) -> BlendedSamples:
        """Features and colors of points, averaged by weight over the source views that see them.

        Without `feature_maps` each view is encoded where it is sampled, with gradients. Points that no view sees have
        zero features and are gray.
        """
        found = [self.features(index, sample, sources, feature_maps) for index, sample in projected.items()]
        cosine, seen, rgb = (
            torch.stack([getattr(sample, name) for sample in projected.values()]) for name in ("cosine", "seen", "rgb")
        )
        if self.weights is not None:
            rows = zip(found, cosine, strict=True)
            weights = seen * torch.stack([self.weights(features, directions, cos) for features, cos in rows])
        else:
            assert self.settings.blending != "learned"
            weights = angle_weights(self.settings.blending, cosine, seen)
        share = normalize_weights(weights)
        features, colors = ((share[..., None] * values).sum(0) for values in (torch.stack(found), rgb))
        return BlendedSamples(features, colors + GRAY * (1 - share.sum(0))[:, None], share)

    def features(
        self,
        index: int,
        sample: ProjectedSample,
        sources: SourceViews,
        feature_maps: list[Float[Tensor, "c _ _"]] | None,
    ) -> Float[Tensor, "p d"]:
        """Features of one source view to blend; zero at points that it does not see."""
        if self.encoder is None:
            return sample.rgb * sample.seen[:, None]
        if feature_maps is not None:
            found = sample_bilinear(feature_maps[index], sample.xy)
        else:
            found = self.sample_features(sources.image(index)[:3], sample.xy, sample.seen)
        return self.concatenate_features(sample.rgb, found) * sample.seen[:, None]

    def sample_features(
        self, image: Float[Tensor, "3 h w"], xy: Float[Tensor, "p 2"], seen: Bool[Tensor, " p"]
    ) -> Float[Tensor, "p c"]:
        """Encoder features of an image at some positions; only the window around visible ones is encoded."""
        assert self.encoder is not None
        if not bool(seen.any()):
            return xy.new_zeros(len(xy), self.settings.feature_dim)
        height, width = image.shape[1:]
        rows, columns = bounding_window(xy[seen].detach(), (width, height), MARGIN, self.encoder.multiple)
        corner = torch.tensor([columns.start, rows.start], device=xy.device)
        return sample_bilinear(self.encode_image(image[:, rows, columns]), xy - corner)

    def concatenate_features(
        self, rgb: Float[Tensor, "p 3"], encode_image: Float[Tensor, "p c"]
    ) -> Float[Tensor, "p d"]:
        """Colors and encoder features to blend and decode."""
        return torch.cat([rgb, encode_image], -1) if self.settings.features == "both" else encode_image

    def image(
        self,
        features: Float[Tensor, "p c"],
        rgb: Float[Tensor, "p 3"],
        rows: Int[Tensor, " p"],
        size: tuple[int, int],
        count: int,
    ) -> Float[Tensor, "p 3"]:
        """Colors of points at the pixels `rows` of `count` pixels, images of `size` (height, width)."""
        if self.decoder is None:
            return rgb
        canvas = features.new_zeros(count, features.shape[1]).index_put((rows,), features)
        with autocast(features.device, self.settings.bf16):
            added = self.decoder(canvas.view(-1, *size, features.shape[1]).permute(0, 3, 1, 2))
        added = added.float().permute(0, 2, 3, 1).reshape(count, 3)[rows]
        return added + (rgb if self.settings.features == "both" else GRAY)


class BackgroundModel(nn.Module):
    """Colors of the background outside the unit ball, by position and direction where rays leave it."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Linear(positional_width(6, OCTAVES), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        self.network = nn.Sequential(*layers, nn.Linear(HIDDEN, 3), nn.Sigmoid())

    def forward(self, rays: RaySegments) -> Float[Tensor, "r 3"]:
        """RGB in [0, 1]; rays that miss the ball use their closest point to it."""
        middle = -(rays.origins * rays.directions).sum(-1)
        closest_approach = rays.at(middle)
        half = (1 - closest_approach.square().sum(-1)).clamp_min(0).sqrt()
        place = closest_approach + half[:, None] * rays.directions
        return self.network(positional(torch.cat([place, rays.directions], -1), OCTAVES))
