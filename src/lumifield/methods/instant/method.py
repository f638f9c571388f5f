"""The module behind `instant`: a feature grid and two small networks; `sampling.py` says where they are asked."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lumifield import kernels
from lumifield.data.scene import Batch, Scene, median_pixel_width
from lumifield.fields.encodings import spherical_harmonics
from lumifield.fields.hash_grid import FeatureGrid, geometric
from lumifield.geometry.contraction import SceneBox
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Context, Method, Rendered
from lumifield.methods.instant import Instant
from lumifield.methods.instant.sampling import Marcher, Proposer, Sampled
from lumifield.runtime.precision import autocast
from lumifield.runtime.rng import Rng
from lumifield.volume.occupancy import crop_to_silhouettes
from lumifield.volume.packed import PackedSamples

CHUNK = 16384
ROUND = 1024
SQUARE = 12**0.5
"""Width of a square over its standard deviation along an axis."""
MOST_RAYS = 16384
FIRST_RAYS = 1024
NDC_STEPS = 256
FINEST_LIMIT_OF_MATTER, FINEST_LIMIT_OF_SPACE = 2048, 512
LOG_THICKNESS_LIMIT = 10.0
OPAQUE_LENGTH = 100.0
"""Where rays of open space end at the earliest [scene units]: bounds that follow from points know no sky."""
FIRST_THICKNESS_OF_MATTER, FIRST_THICKNESS_OF_SPACE = 0.1, 0.01


class InstantMethod(Method):
    """Density and color from grid features at the few samples of a ray that may matter."""

    box: Tensor
    rays: Tensor

    def __init__(self, settings: Instant, scene: Scene, *, beside: int = 0) -> None:
        super().__init__()
        carve = settings.carve and scene.images is not None
        box = crop_to_silhouettes(scene) if carve else scene.box
        self.register_buffer("box", box.clone())
        self.contracted = scene.unbounded
        self.open = scene.background == "none"
        self.pixel = pixel = median_pixel_width(scene)
        self.ndc = scene.ndc is not None
        cone = settings.cone if scene.unbounded else 0.0
        # Unbounded scenes are scaled to cameras at distance 1: nearer than half of that, steps stay the same.
        usual = 1 / NDC_STEPS if scene.ndc else max(cone / 2, pixel) if scene.unbounded else pixel
        self.step = usual * settings.step
        limit = FINEST_LIMIT_OF_SPACE if self.open else FINEST_LIMIT_OF_MATTER
        finest = settings.finest or min(round(2 * self.space.diameter / pixel), limit)
        sampling = settings.sampling
        if sampling == "auto":
            sampling = "proposals" if self.open else "occupancy"
        self.settings = replace(settings, finest=finest, sampling=sampling)
        self.grid = FeatureGrid(
            geometric(settings.coarsest, finest, settings.levels),
            settings.features,
            settings.log2_entries,
            smeared=settings.anti_alias,
        )
        hidden = settings.hidden
        self.density_net = nn.Sequential(
            nn.Linear(self.grid.width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, 16, bias=False)
        )
        self.color_net = nn.Sequential(
            nn.Linear(32 + beside, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, 3, bias=False),
        )
        if sampling == "proposals":
            self.sampler = Proposer(settings, scene, self.space, first=self.first)
        else:
            self.sampler = Marcher(settings, scene, self.space, step=self.step, cone=cone)
        self.register_buffer("rays", torch.tensor(float(FIRST_RAYS)))

    @property
    def space(self) -> SceneBox:
        """The space that the grids cover."""
        return SceneBox(self.box, self.contracted)

    def forward(self, rays: Rays, context: Context) -> Rendered:
        """Choose where to look, look up, composite."""
        sampled = self.sampled(rays, context)
        density, rgb = self.look_up(sampled.packed, rays)
        return self.composited(sampled, rays, density, rgb, context)

    def sampled(self, rays: Rays, context: Context) -> Sampled:
        """Where to look along the rays; in open space, however near their bounds end, to where the sky is.

        A sky that images from one side see right behind the scene would stand before those from the other side.
        """
        if self.contracted and self.open:
            rays = replace(rays, far=rays.far.clamp_min(OPAQUE_LENGTH))
        return self.sampler(rays, self.space, self.density, context.rng)

    def composited(
        self, sampled: Sampled, rays: Rays, density: Float[Tensor, " s"], rgb: Float[Tensor, "s 3"], context: Context
    ) -> Rendered:
        """What the samples show together."""
        packed = sampled.packed
        weights = kernels.packed_weights(density * packed.lengths(rays), packed.offsets)
        sums = kernels.segment_sum(weights[:, None] * torch.cat([rgb, torch.ones_like(rgb[:, :1])], -1), packed.offsets)
        opacity = sums[:, 3]
        return Rendered(
            rgb=sums[:, :3] + (1 - opacity[:, None]) * context.background,
            depth=packed.median(weights, rays.far),
            opacity=opacity,
            samples=len(packed),
            penalties=sampled.penalties(weights, self.settings.distortion) if context.rng is not None else {},
        )

    def look_up(
        self, packed: PackedSamples, rays: Rays, beside: Float[Tensor, "r b"] | None = None
    ) -> tuple[Float[Tensor, " s"], Float[Tensor, "s 3"]]:
        """Density and color of each sample.

        Colors depend on what stands `beside` each ray, too, where the method was built for that.
        """
        side = spherical_harmonics(rays.viewdirs, 4)
        side = side if beside is None else torch.cat([side, beside], -1)
        median_pixel_width = packed.pixel_widths(rays, cylinders=self.ndc)
        density, rgb = self.field(packed.points(rays), median_pixel_width, side[packed.ray])
        if self.contracted:
            density, rgb = tempered(density, packed.midpoints), tempered(rgb, packed.midpoints[:, None])
        return density, rgb

    def field(
        self, points: Float[Tensor, "s 3"], median_pixel_width: Float[Tensor, " s"], side: Float[Tensor, "s c"]
    ) -> tuple[Float[Tensor, " s"], Float[Tensor, "s 3"]]:
        """Density and color at points as pixels of that width see them, in pieces for the cache.

        `side` has the harmonics of the direction, and what else colors depend on.
        """
        count, side = len(points), padded(side)
        unit, features = self.features(points, median_pixel_width)
        parts = []
        with autocast(features.device, self.settings.bf16):
            for feature, beside in zip(features.split(CHUNK), side.split(CHUNK), strict=True):
                hidden = self.density_net(feature)
                color = self.color_net(torch.cat([hidden, beside.to(hidden.dtype)], -1))
                parts.append((hidden[:, 0], color))
        optical_depth, color = (torch.cat(part)[:count].float() for part in zip(*parts, strict=True))
        return self.to_density(optical_depth, unit[:count]), torch.sigmoid(color)

    @torch.no_grad()
    def density(
        self, points: Float[Tensor, "p 3"], median_pixel_width: Float[Tensor, " p"] | None = None
    ) -> Float[Tensor, " p"]:
        """Density alone, without a gradient [1 / scene unit], as pixels of that width see it (an image's)."""
        if median_pixel_width is None:
            median_pixel_width = points.new_full((len(points),), self.pixel)
        unit, features = self.features(points, median_pixel_width)
        with autocast(points.device, self.settings.bf16):
            raw = [self.density_net(part)[:, 0] for part in features.split(CHUNK)]
        return self.to_density(torch.cat(raw)[: len(median_pixel_width)].float(), unit[: len(median_pixel_width)])

    def features(
        self, points: Float[Tensor, "p 3"], median_pixel_width: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m features"]]:
        """Where the points lie in the unit cube, and the features there of pixels of that width; both padded."""
        unit = self.space.to_unit_cube(padded(points))
        if not self.settings.anti_alias:
            return unit, self.grid(unit)
        width = median_pixel_width * self.space.contraction_scale(points) / SQUARE
        return unit, self.grid(unit, padded(width[:, None])[:, 0])

    def to_density(self, raw: Float[Tensor, " s"], unit: Float[Tensor, "s 3"]) -> Float[Tensor, " s"]:
        """exp(raw) times the density where training sets out; bounded, and none where matter cannot be.

        Inside silhouettes most of space is matter, and a step starts a tenth opaque. In open space that would be a fog
        before the first camera: there it starts a hundredth opaque.
        """
        return torch.exp(raw.clamp(max=LOG_THICKNESS_LIMIT)) * self.first * self.sampler.possible(unit)

    @property
    def first(self) -> float:
        """Density where training sets out [1 / scene unit]."""
        return (FIRST_THICKNESS_OF_SPACE if self.open else FIRST_THICKNESS_OF_MATTER) / self.step

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Squared error of the colors, and what the choice of intervals costs."""
        return {"rgb": F.mse_loss(rendered.rgb, batch.rgb), **rendered.penalties}

    def inside(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density at scene points; none where no ray is looked at."""
        return self.sampler.inside(self.density, self.space, points)

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Colors at scene points, as pixels of the images see them."""
        return self.field(points, points.new_full((len(points),), self.pixel), spherical_harmonics(viewdirs, 4))[1]

    def param_groups(self) -> list[dict[str, Any]]:
        """One group for the grids, one for the networks."""
        networks = [*self.density_net.parameters(), *self.color_net.parameters()]
        return [{"params": [self.grid.table, *self.sampler.parameters()]}, {"params": networks}]

    def rays_per_step(self) -> int:
        """As many rays as bring the wanted number of samples."""
        return int(self.rays)

    def before_step(self, step: int, rng: Rng) -> None:
        """Prepares the choice of intervals."""
        self.sampler.prepare(step, self.space, self.density, rng)

    def after_step(self, step: int, rays: int, samples: int) -> None:
        """Adapts the number of rays to the samples that they brought."""
        wanted = rays * self.settings.samples_per_step / max(samples, 1)
        self.rays.copy_((0.8 * self.rays + 0.2 * wanted).clamp(64, MOST_RAYS))


def tempered(values: Float[Tensor, " s *c"], t: Float[Tensor, " s #*c"]) -> Float[Tensor, " s *c"]:
    """The values, with gradients times min(1, t^2) (Philip and Deschaintre 2023).

    Right before a camera many rays of one image meet in few cells, which would learn what it alone sees.
    """
    share = t.square().clamp(max=1)
    return values * share + (values * (1 - share)).detach()


def padded(rows: Float[Tensor, "n c"]) -> Float[Tensor, "m c"]:
    """Rows with zeros to a multiple of `ROUND` (at least one): oneDNN compiles its products anew for every new size."""
    return F.pad(rows, (0, 0, 0, -len(rows) % ROUND if len(rows) else ROUND))
