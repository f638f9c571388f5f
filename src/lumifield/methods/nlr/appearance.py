"""From images to colors: features of every pixel, blended where a point is seen, decoded as an image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from lumifield.fields.encodings import positional, positional_width
from lumifield.geometry.image_sampling import bounding_window, sample_bilinear
from lumifield.methods.nlr import Nlr
from lumifield.methods.nlr.blending import LearnedWeights, by_angle, shares
from lumifield.methods.nlr.image_features import Decoder, Encoder
from lumifield.methods.nlr.sources import Sight, Sources
from lumifield.methods.nlr.sphere_tracing import Segments
from lumifield.runtime.colormaps import sinebow
from lumifield.runtime.precision import autocast

MARGIN = 16
"""Pixels about those that are looked up which an encoder sees, too."""
GRAY = 0.5
"""Color of what no source sees, before it is decoded."""
OCTAVES, HIDDEN = 4, 64


@dataclass(frozen=True)
class Blend:
    """Points as their sources show them: features, colors, and how much of them is each source's."""

    features: Float[Tensor, "p c"]
    rgb: Float[Tensor, "p 3"]
    share: Float[Tensor, "n p"]

    def by_source(self) -> Float[Tensor, "p 3"]:
        """A color for each source, mixed as it counts; black where none does."""
        count = len(self.share)
        hues = sinebow(torch.arange(count, device=self.share.device) / count)
        return self.share.T @ hues


class Appearance(nn.Module):
    """Encoder, weights and decoder, as far as the settings have them."""

    def __init__(self, settings: Nlr) -> None:
        super().__init__()
        self.settings = settings
        entry = {"both": 3 + settings.channels, "learned": settings.channels, "rgb": 3}[settings.features]
        self.encoder = self.decoder = self.weights = None
        if settings.features != "rgb":
            stages, width = settings.encoder_stages, settings.encoder_width
            self.encoder = Encoder(stages=stages, width=width, features=settings.channels)
            depth, width, blank = settings.decoder_depth, settings.decoder_width, settings.features == "both"
            self.decoder = Decoder(entry, depth=depth, width=width, blank=blank)
        if settings.blending == "learned":
            self.weights = LearnedWeights(entry)

    @torch.no_grad()
    def maps(self, sources: Sources) -> list[Float[Tensor, "c _ _"]]:
        """The features of every source, whole; none where colors are all that is blended."""
        if self.encoder is None:
            return []
        return [self.encoded(sources.image(index)[:3]) for index in range(len(sources))]

    def encoded(self, image: Float[Tensor, "3 h w"]) -> Float[Tensor, "c h w"]:
        """The features of an image."""
        assert self.encoder is not None
        with autocast(image.device, self.settings.bf16):
            return self.encoder(image[None])[0].float()

    def blended(
        self,
        sights: dict[int, Sight],
        sources: Sources,
        directions: Float[Tensor, "p 3"],
        maps: list[Float[Tensor, "c _ _"]] | None,
    ) -> Blend:
        """Features and colors of points, the mean over the sources that see them by weight.

        Without `maps` of whole sources each is encoded where it is looked up, with gradients. What no source sees has
        features of zero and is gray.
        """
        found = [self.features(index, sight, sources, maps) for index, sight in sights.items()]
        cosine, seen, rgb = (
            torch.stack([getattr(sight, name) for sight in sights.values()]) for name in ("cosine", "seen", "rgb")
        )
        if self.weights is not None:
            rows = zip(found, cosine, strict=True)
            weights = seen * torch.stack([self.weights(features, directions, cos) for features, cos in rows])
        else:
            assert self.settings.blending != "learned"
            weights = by_angle(self.settings.blending, cosine, seen)
        share = shares(weights)
        features, colors = ((share[..., None] * values).sum(0) for values in (torch.stack(found), rgb))
        return Blend(features, colors + GRAY * (1 - share.sum(0))[:, None], share)

    def features(
        self, index: int, sight: Sight, sources: Sources, maps: list[Float[Tensor, "c _ _"]] | None
    ) -> Float[Tensor, "p d"]:
        """What is blended of one source; zero at points that it does not see."""
        if self.encoder is None:
            return sight.rgb * sight.seen[:, None]
        if maps is not None:
            found = sample_bilinear(maps[index], sight.xy)
        else:
            found = self.looked_up(sources.image(index)[:3], sight.xy, sight.seen)
        return self.joined(sight.rgb, found) * sight.seen[:, None]

    def looked_up(
        self, image: Float[Tensor, "3 h w"], xy: Float[Tensor, "p 2"], seen: Bool[Tensor, " p"]
    ) -> Float[Tensor, "p c"]:
        """The encoder's features of an image at some places; only the window about those that are seen is encoded."""
        assert self.encoder is not None
        if not bool(seen.any()):
            return xy.new_zeros(len(xy), self.settings.channels)
        height, width = image.shape[1:]
        rows, columns = bounding_window(xy[seen].detach(), (width, height), MARGIN, self.encoder.multiple)
        corner = torch.tensor([columns.start, rows.start], device=xy.device)
        return sample_bilinear(self.encoded(image[:, rows, columns]), xy - corner)

    def joined(self, rgb: Float[Tensor, "p 3"], encoded: Float[Tensor, "p c"]) -> Float[Tensor, "p d"]:
        """What is blended and decoded of colors and the encoder's features."""
        return torch.cat([rgb, encoded], -1) if self.settings.features == "both" else encoded

    def image(
        self,
        features: Float[Tensor, "p c"],
        rgb: Float[Tensor, "p 3"],
        rows: Int[Tensor, " p"],
        size: tuple[int, int],
        count: int,
    ) -> Float[Tensor, "p 3"]:
        """Colors of points that are the pixels `rows` of `count` pixels, images of `size` (height, width)."""
        if self.decoder is None:
            return rgb
        canvas = features.new_zeros(count, features.shape[1]).index_put((rows,), features)
        with autocast(features.device, self.settings.bf16):
            added = self.decoder(canvas.view(-1, *size, features.shape[1]).permute(0, 3, 1, 2))
        added = added.float().permute(0, 2, 3, 1).reshape(count, 3)[rows]
        return added + (rgb if self.settings.features == "both" else GRAY)


class Backdrop(nn.Module):
    """Colors of what lies behind the unit ball, by where and in which direction rays leave it."""

    def __init__(self) -> None:
        super().__init__()
        layers = nn.Linear(positional_width(6, OCTAVES), HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, HIDDEN), nn.ReLU()
        self.network = nn.Sequential(*layers, nn.Linear(HIDDEN, 3), nn.Sigmoid())

    def forward(self, rays: Segments) -> Float[Tensor, "r 3"]:
        """rgb in [0, 1]; rays that miss the ball count where they come closest to it."""
        middle = -(rays.origins * rays.directions).sum(-1)
        closest = rays.at(middle)
        half = (1 - closest.square().sum(-1)).clamp_min(0).sqrt()
        place = closest + half[:, None] * rays.directions
        return self.network(positional(torch.cat([place, rays.directions], -1), OCTAVES))
