"""Method `instant`: hash grid and two small networks, evaluated at the samples of `ray_samplers`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lumifield.data.scene import Batch, Scene, median_pixel_width
from lumifield.fields.encodings import spherical_harmonics
from lumifield.fields.hash_grid import FeatureGrid, geometric_resolutions
from lumifield.geometry.contraction import SceneBox
from lumifield.geometry.rays import Rays
from lumifield.methods.base import Method, RenderContext, Rendered, TrainingContext
from lumifield.methods.instant import Instant
from lumifield.methods.instant.ray_samplers import OccupancySampler, ProposalSampler, RaySamples
from lumifield.runtime.precision import autocast
from lumifield.runtime.rng import Rng
from lumifield.volume.occupancy import crop_to_silhouettes
from lumifield.volume.packed import PackedSamples

CHUNK = 16384
ROUND = 1024
SQUARE = 12**0.5
"""Width of a square over its standard deviation along an axis."""
MAX_RAYS = 16384
INITIAL_RAYS = 1024
NDC_STEPS = 256
MAX_RESOLUTION_BOUNDED, MAX_RESOLUTION_UNBOUNDED = 2048, 512
LOG_OPTICAL_DEPTH_LIMIT = 10.0
OPAQUE_LENGTH = 100.0
"""Minimum far bound of rays in unbounded scenes [scene units]: bounds from sparse points exclude the sky."""
INITIAL_OPTICAL_DEPTH_BOUNDED, INITIAL_OPTICAL_DEPTH_UNBOUNDED = 0.1, 0.01


class InstantMethod(Method):
    """Density and color from hash grid features at the few samples of a ray that contribute."""

    box: Tensor
    rays: Tensor

    def __init__(self, settings: Instant, scene: Scene, *, num_extra_features: int = 0) -> None:
        super().__init__()
        carve = settings.space_carving and scene.images is not None
        box = crop_to_silhouettes(scene) if carve else scene.box
        self.register_buffer("box", box.clone())
        self.contracted = scene.unbounded
        self.open = scene.background == "none"
        self.pixel = pixel = median_pixel_width(scene)
        self.ndc = scene.ndc is not None
        cone = settings.cone_angle if scene.unbounded else 0.0
        # Unbounded scenes are scaled to a camera distance of 1; closer than half of that the step size is constant.
        base_step = 1 / NDC_STEPS if scene.ndc else max(cone / 2, pixel) if scene.unbounded else pixel
        self.step = base_step * settings.step_size
        limit = MAX_RESOLUTION_UNBOUNDED if self.open else MAX_RESOLUTION_BOUNDED
        finest = settings.max_resolution or min(round(2 * self.space.diameter / pixel), limit)
        sampling = settings.sampling
        if sampling == "auto":
            sampling = "proposals" if self.open else "occupancy"
        self.settings = replace(settings, max_resolution=finest, sampling=sampling)
        self.grid = FeatureGrid(
            geometric_resolutions(settings.base_resolution, finest, settings.num_levels),
            settings.features_per_level,
            settings.log2_hashmap_size,
            anti_alias=settings.anti_alias,
        )
        hidden = settings.hidden_dim
        self.density_net = nn.Sequential(
            nn.Linear(self.grid.width, hidden, bias=False), nn.ReLU(), nn.Linear(hidden, 16, bias=False)
        )
        self.color_net = nn.Sequential(
            nn.Linear(32 + num_extra_features, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, hidden, bias=False),
            nn.ReLU(),
            nn.Linear(hidden, 3, bias=False),
        )
        if sampling == "proposals":
            self.sampler = ProposalSampler(settings, scene, self.space, initial_density=self.initial_density)
        else:
            self.sampler = OccupancySampler(settings, scene, self.space, step=self.step, cone=cone)
        self.register_buffer("rays", torch.tensor(float(INITIAL_RAYS)))

    @property
    def space(self) -> SceneBox:
        """The box that the grids cover."""
        return SceneBox(self.box, self.contracted)

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Samples rays, queries the field and composites."""
        sampled = self.sample_rays(rays, context)
        density, rgb = self.query_samples(sampled.packed, rays)
        return self.composite_samples(sampled, rays, density, rgb, context)

    def sample_rays(self, rays: Rays, context: RenderContext) -> RaySamples:
        """Samples along the rays; in unbounded scenes they extend to the sky, however near the bounds end.

        A sky placed right behind the scene for images from one side would occlude the scene for those from the other.
        """
        if self.contracted and self.open:
            rays = replace(rays, far=rays.far.clamp_min(OPAQUE_LENGTH))
        return self.sampler(rays, self.space, self.query_density, context.jitter_rng)

    def composite_samples(
        self,
        sampled: RaySamples,
        rays: Rays,
        density: Float[Tensor, " s"],
        rgb: Float[Tensor, "s 3"],
        context: RenderContext,
    ) -> Rendered:
        """Composites samples to colors, depth and opacity."""
        packed = sampled.packed
        weights = packed.weights(density, rays)
        rendered = packed.composite(weights, rgb, rays.far, context.background)
        if not isinstance(context, TrainingContext):
            return rendered
        return replace(rendered, penalties=sampled.penalties(weights, self.settings.distortion_loss_weight))

    def query_samples(
        self, packed: PackedSamples, rays: Rays, extra_features: Float[Tensor, "r b"] | None = None
    ) -> tuple[Float[Tensor, " s"], Float[Tensor, "s 3"]]:
        """Density and color of each sample.

        Colors also depend on `extra_features`, per ray, if the method was built for them.
        """
        view = spherical_harmonics(rays.viewdirs, 4)
        view = view if extra_features is None else torch.cat([view, extra_features], -1)
        pixel_width = packed.pixel_widths(rays, cylinders=self.ndc)
        density, rgb = self.field(packed.points(rays), pixel_width, view[packed.ray])
        if self.contracted:
            density, rgb = scale_gradients(density, packed.midpoints), scale_gradients(rgb, packed.midpoints[:, None])
        return density, rgb

    def field(
        self, points: Float[Tensor, "s 3"], pixel_width: Float[Tensor, " s"], view: Float[Tensor, "s c"]
    ) -> tuple[Float[Tensor, " s"], Float[Tensor, "s 3"]]:
        """Density and color at points, anti-aliased to the pixel width, in chunks that fit the cache.

        `view` holds the spherical harmonics of the direction and the extra features of the color network.
        """
        count, view = len(points), pad_rows(view)
        unit, features = self.features(points, pixel_width)
        parts = []
        with autocast(features.device, self.settings.bf16):
            for feature, view_part in zip(features.split(CHUNK), view.split(CHUNK), strict=True):
                hidden = self.density_net(feature)
                color = self.color_net(torch.cat([hidden, view_part.to(hidden.dtype)], -1))
                parts.append((hidden[:, 0], color))
        optical_depth, color = (torch.cat(part)[:count].float() for part in zip(*parts, strict=True))
        return self.to_density(optical_depth, unit[:count]), torch.sigmoid(color)

    @torch.no_grad()
    def query_density(
        self, points: Float[Tensor, "p 3"], pixel_width: Float[Tensor, " p"] | None = None
    ) -> Float[Tensor, " p"]:
        """Density of the network, also outside the occupied cells, without gradient [1 / scene unit].

        It is anti-aliased to the pixel width, by default that of the training images.
        """
        if pixel_width is None:
            pixel_width = points.new_full((len(points),), self.pixel)
        unit, features = self.features(points, pixel_width)
        with autocast(points.device, self.settings.bf16):
            raw = [self.density_net(part)[:, 0] for part in features.split(CHUNK)]
        return self.to_density(torch.cat(raw)[: len(pixel_width)].float(), unit[: len(pixel_width)])

    def features(
        self, points: Float[Tensor, "p 3"], pixel_width: Float[Tensor, " p"]
    ) -> tuple[Float[Tensor, "m 3"], Float[Tensor, "m features"]]:
        """Coordinates in the unit cube and hash grid features of the given pixel width; both padded."""
        unit = self.space.to_unit_cube(pad_rows(points))
        if not self.settings.anti_alias:
            return unit, self.grid(unit)
        width = pixel_width * self.space.contraction_scale(points) / SQUARE
        return unit, self.grid(unit, pad_rows(width[:, None])[:, 0])

    def to_density(self, raw: Float[Tensor, " s"], unit: Float[Tensor, "s 3"]) -> Float[Tensor, " s"]:
        """exp(raw) times the initial density; bounded, and zero where the sampler excludes density.

        Inside silhouettes most of the space is occupied and a step starts with opacity 0.1. In unbounded scenes that
        would be fog in front of the first camera: there it starts with 0.01.
        """
        return (
            torch.exp(raw.clamp(max=LOG_OPTICAL_DEPTH_LIMIT))
            * self.initial_density
            * self.sampler.may_contain_density(unit)
        )

    @property
    def initial_density(self) -> float:
        """Density at the start of training [1 / scene unit]."""
        return (INITIAL_OPTICAL_DEPTH_UNBOUNDED if self.open else INITIAL_OPTICAL_DEPTH_BOUNDED) / self.step

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Squared error of the colors, and the losses of the sampler."""
        return {"rgb": F.mse_loss(rendered.rgb, batch.rgb), **rendered.penalties}

    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density at scene points; zero where no ray is sampled."""
        return self.sampler.mask_density(self.query_density, self.space, points)

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Colors at scene points, anti-aliased to the pixel width of the training images."""
        return self.field(points, points.new_full((len(points),), self.pixel), spherical_harmonics(viewdirs, 4))[1]

    def param_groups(self) -> list[dict[str, Any]]:
        """One group for the grids, one for the networks."""
        networks = [*self.density_net.parameters(), *self.color_net.parameters()]
        return [{"params": [self.grid.table, *self.sampler.parameters()]}, {"params": networks}]

    def rays_per_step(self) -> int:
        """Number of rays that yields the target number of samples."""
        return int(self.rays)  # synchronizes with the device: the host samples the batch

    def before_step(self, step: int, rng: Rng) -> None:
        """Updates the sampler."""
        self.sampler.prepare(step, self.space, self.query_density, rng)

    def after_step(self, step: int, rays: int, samples: int) -> None:
        """Adapts the number of rays to their samples."""
        wanted = rays * self.settings.samples_per_step / max(samples, 1)
        self.rays.copy_((0.8 * self.rays + 0.2 * wanted).clamp(64, MAX_RAYS))


def scale_gradients(values: Float[Tensor, " s *c"], t: Float[Tensor, " s #*c"]) -> Float[Tensor, " s *c"]:
    """The values, with gradients scaled by min(1, t^2) (Philip and Deschaintre 2023).

    Close to a camera many rays of one image share few cells, which would overfit to that image.
    """
    share = t.square().clamp(max=1)
    return values * share + (values * (1 - share)).detach()


def pad_rows(rows: Float[Tensor, "n c"]) -> Float[Tensor, "m c"]:
    """Rows zero-padded to a multiple of `ROUND` (at least one): oneDNN compiles a new kernel for every new size."""
    return F.pad(rows, (0, 0, 0, -len(rows) % ROUND if len(rows) else ROUND))
