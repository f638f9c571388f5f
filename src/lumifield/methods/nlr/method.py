"""Method `nlr`: traces the surface, blends the images that see it, and decodes the blend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from lumifield.data.scene import Batch, Scene
from lumifield.errors import DataError
from lumifield.geometry.cameras import Cameras
from lumifield.geometry.normals import normalize_or_zero
from lumifield.geometry.rays import Ndc, Rays, offset_rays
from lumifield.methods.base import Method, RenderContext, Rendered, TrainingContext, Traits
from lumifield.methods.nlr import ColorLoss, Nlr
from lumifield.methods.nlr.distance_grid import Distance, DistanceGrid, refine_grid, sample_on_grid
from lumifield.methods.nlr.hits import Hit, average_hits, subpixel_offsets
from lumifield.methods.nlr.image_based_appearance import BackgroundModel, BlendedSamples, ImageBasedAppearance
from lumifield.methods.nlr.mesh_proxy import MeshProxy, extract_triangles
from lumifield.methods.nlr.sdf import GridSdf, Sdf, make_frequencies
from lumifield.methods.nlr.source_views import ProjectedSample, SourceViews
from lumifield.methods.nlr.sphere_tracing import (
    RaySegments,
    TracingSettings,
    closest_approach,
    hit_points,
    is_unoccluded,
    sphere_trace,
    sphere_trace_guided,
)
from lumifield.runtime.rng import Rng
from lumifield.volume.occupancy import crop_to_silhouettes

TRACING = TracingSettings()
GRID = 48
"""Resolution of the distance grid for occlusion tests."""
PROXY_SUBDIVISION = 4
"""Refinement of the grid from which the mesh proxy is extracted."""
BALL_MARGIN = 1.02
"""Radius of the ball relative to the visual hull."""
BLUR = 0.005
"""Transition width of the surface as a density [radii of the ball]."""


class NlrMethod(Method):
    """Signed distance field in a ball around the object, with image-based appearance (NLR++)."""

    center: Tensor
    radius: Tensor
    distances: Tensor

    def __init__(self, settings: Nlr, scene: Scene) -> None:
        super().__init__()
        validate_scene(scene)
        self.settings = settings
        self.traits = Traits(("blended", "sources"), patch_size=settings.patch_size, has_signed_distance=True)
        self.masked = scene.background != "none"
        center, radius = bounding_ball(scene)
        self.register_buffer("center", center)
        self.register_buffer("radius", radius)
        self.register_buffer("distances", torch.ones(GRID, GRID, GRID))
        self.sources = SourceViews(scene)
        self.sdf = build_sdf(settings)
        self.appearance_net = ImageBasedAppearance(settings)
        self.background_model = None if self.masked else BackgroundModel()
        if (
            settings.imagenet_weights is not None
            and scene.images is not None
            and self.appearance_net.encoder is not None
        ):
            self.appearance_net.encoder.load_imagenet(settings.imagenet_weights)
        for name in settings.frozen_parts:
            self._parts()[name].requires_grad_(False)
        self._inference_cache: tuple[Tensor, list[Tensor]] | None = None
        self._mesh_proxy: MeshProxy | None = None

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Traces, blends and decodes; shape steps add mask and eikonal losses."""
        shape = isinstance(context, TrainingContext) and self.learns_shape(context.step)
        if isinstance(context, TrainingContext) and context.step % self.settings.visibility_update_interval == 0:
            self.distances.copy_(sample_on_grid(self.sdf, GRID, self.distances.device))
        segments = self.segments(rays)
        if context.patch_size is not None and not isinstance(context, TrainingContext):
            hit = self.trace_supersampled(rays, context.patch_size, context)
        else:
            hit = self.trace_hits(rays, segments, context, shape=shape)
        rows, blend, rgb = hit.rows, hit.blend, hit.blend.rgb
        if context.patch_size is not None and len(rows):
            rgb = self.appearance_net.image(blend.features, rgb, rows, context.patch_size, len(rays))
        if not isinstance(context, TrainingContext):
            rgb = rgb.clamp(0, 1)
        opacity = torch.zeros_like(rays.far).index_fill(0, rows, 1)
        background = (
            context.background.expand(len(rays), 3)
            if self.background_model is None
            else self.background_model(segments)
        )
        return Rendered(
            rgb=background.index_put((rows,), rgb),
            depth=rays.far.index_put((rows,), hit.t),
            opacity=opacity if self.background_model is None else torch.ones_like(opacity),
            samples=len(rays),
            penalties=self.penalties(context) if shape and isinstance(context, TrainingContext) else {},
            channels={name: channel_of_blend(blend, name, rows, background) for name in context.channels},
        )

    def trace_hits(self, rays: Rays, segments: RaySegments, context: RenderContext, *, shape: bool) -> Hit:
        """Rays that hit the surface, distances, and blended samples there."""
        rows = self.may_hit(rays, context).nonzero()[:, 0]
        if not isinstance(context, TrainingContext):
            t, is_hit = sphere_trace(self.sdf, segments[rows], TRACING)
        else:
            t, is_hit = sphere_trace_guided(self.sdf, DistanceGrid(self.distances), segments[rows], TRACING)
        rows, t = rows[is_hit], t[is_hit]
        hits_in_ball = segments[rows]
        points = hit_points(self.sdf, hits_in_ball, t) if shape else hits_in_ball.at(t)
        return Hit(rows, t * self.radius, self.blend_at_points(points, rays[rows], context))

    def trace_supersampled(self, rays: Rays, size: tuple[int, int], context: RenderContext) -> Hit:
        """Hits of the pixels of an image, averaged over several rays per pixel."""
        hits = []
        for part in subpixel_offsets(self.settings.supersampling):
            own = offset_rays(rays, size, part)
            if context.fast_preview is None:
                hits.append(self.trace_hits(own, self.segments(own), context, shape=False))
            else:
                hits.append(self.render_proxy(own, context.fast_preview.offset_pixels(part)))
        return average_hits(hits, len(rays))

    def render_proxy(self, rays: Rays, camera: Cameras) -> Hit:
        """Hits of the image of a camera from the mesh proxy and cached features."""
        proxy, (_, feature_maps) = self.mesh_proxy(), self.inference_cache()
        pixels = proxy.rasterize_view(camera)
        rays = rays[pixels.rows]
        t = ((pixels.points - rays.origins) * rays.directions).sum(-1)
        projected = {
            index: self.sources.project_samples(index, pixels.points, rays.directions)
            for index in range(len(self.sources))
        }
        projected = {
            index: replace(sample, seen=sample.seen & pixels.seen[index]) for index, sample in projected.items()
        }
        return Hit(
            pixels.rows, t, self.appearance_net.blend_sources(projected, self.sources, rays.directions, feature_maps)
        )

    def may_hit(self, rays: Rays, context: RenderContext) -> Bool[Tensor, " r"]:
        """Rays that may hit the surface: in training those whose pixels have a color to compare with."""
        if not isinstance(context, TrainingContext):
            return torch.ones_like(rays.image, dtype=torch.bool)
        return self.sources.is_in_silhouette(rays) & (not self.is_mask_only_step(context.step))

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """Color error of rays that hit the object in the image as well (equation 6), and losses of shape steps."""
        counts = rendered.opacity if batch.alpha is None else rendered.opacity * (batch.alpha >= 0.5)
        error = color_error(rendered.rgb, batch.rgb, self.settings.color_loss).mean(-1)
        return {"rgb": (error * counts).sum() / counts.sum().clamp_min(1)} | rendered.penalties

    def blend_at_points(self, points: Float[Tensor, "p 3"], rays: Rays, context: RenderContext) -> BlendedSamples:
        """Blended features and colors at surface points; in training without the image of each ray."""
        where = self.center + self.radius * points
        if not isinstance(context, TrainingContext):
            indices, tolerance = list(range(len(self.sources))), self.settings.min_visibility_tolerance
            distances, feature_maps = self.inference_cache()
        else:
            indices, tolerance = self.select_sources(rays.image, context.rng), self.visibility_tolerance(context.step)
            distances, feature_maps = self.distances, None
        projected = {index: self.sources.project_samples(index, where, rays.directions) for index in indices}
        if isinstance(context, TrainingContext):
            projected = {
                index: replace(sample, seen=sample.seen & (rays.image != index)) for index, sample in projected.items()
            }
        projected = self.remove_occluded(projected, points, DistanceGrid(distances), tolerance)
        return self.appearance_net.blend_sources(projected, self.sources, rays.directions, feature_maps)

    @torch.no_grad()
    def remove_occluded(
        self, projected: dict[int, ProjectedSample], points: Float[Tensor, "p 3"], distance: Distance, tolerance: float
    ) -> dict[int, ProjectedSample]:
        """The projected samples without points of the ball that are occluded from their views."""
        seen = torch.stack([sample.seen for sample in projected.values()])
        centers = self.camera_centers[list(projected)]
        source, point = seen.nonzero(as_tuple=True)
        seen[source, point] = is_unoccluded(distance, points[point], centers[source], tolerance, TRACING)
        return {index: replace(sample, seen=own) for (index, sample), own in zip(projected.items(), seen, strict=True)}

    def penalties(self, context: TrainingContext) -> dict[str, Tensor]:
        """Shape losses: eikonal and mask loss (equations 7 to 9)."""
        rng = context.rng
        count = max(self.settings.num_eikonal_points // rng.world, 1)
        norm = self.sdf.gradient(2 * rng.uniform(count, 3) - 1).norm(dim=-1)
        deviation = color_error(norm, torch.ones_like(norm), self.settings.eikonal_loss)
        found = {"eikonal": self.settings.eikonal_loss_weight * deviation.mean()}
        rays, rgb, solid = self.sources.sample_pixels(max(self.settings.num_mask_rays // rng.world, 1), rng)
        segments = self.segments(rays)
        hits_in_ball = (segments.near < segments.far).nonzero()[:, 0]
        rays, rgb, solid, segments = rays[hits_in_ball], rgb[hits_in_ball], solid[hits_in_ball], segments[hits_in_ball]
        t = closest_approach(DistanceGrid(self.distances), segments, self.settings.num_mask_samples)
        distance = self.sdf(segments.at(t))
        sharpness = self.sharpness(context.step)
        if self.background_model is not None:
            opacity = torch.sigmoid(-sharpness * distance)[:, None]
            with torch.no_grad():
                surface_rgb = self.blend_at_points(segments.at(t), rays, context).rgb
            seen = opacity * surface_rgb + (1 - opacity) * self.background_model(segments)
            return found | {"silhouette": (seen - rgb).abs().mean()}
        # Rays deep inside count as well: without them, rays just outside would push edges inwards unopposed.
        error = F.binary_cross_entropy_with_logits(-sharpness * distance, solid.float(), reduction="sum")
        return found | {"silhouette": 100 / sharpness * error / solid.sum().clamp_min(1)}

    def before_step(self, step: int, rng: Rng) -> None:
        """Selects whether the step trains the shape."""
        self.sdf.requires_grad_(self.learns_shape(step) and "shape" not in self.settings.frozen_parts)

    @torch.no_grad()
    def inference_cache(self) -> tuple[Tensor, list[Tensor]]:
        """Current distance grid and source feature maps, cached until training continues."""
        if self._inference_cache is None or self.training:
            distances = sample_on_grid(self.sdf, GRID, self.distances.device)
            self._inference_cache = distances, self.appearance_net.feature_maps(self.sources)
        return self._inference_cache

    @torch.no_grad()
    def mesh_proxy(self) -> MeshProxy:
        """Mesh of the surface with visibility per source view, cached until training continues."""
        if self._mesh_proxy is None or self.training:
            distances, _ = self.inference_cache()
            places, faces = extract_triangles(refine_grid(self.sdf, distances, PROXY_SUBDIVISION))
            tolerance, centers = self.settings.min_visibility_tolerance, self.camera_centers[:, None]
            grid, centers = DistanceGrid(distances), centers.expand(-1, len(places), 3)
            seen = torch.stack([is_unoccluded(grid, places, center, tolerance, TRACING) for center in centers])
            self._mesh_proxy = MeshProxy(self.center + self.radius * places, faces, seen)
        return self._mesh_proxy

    @property
    def camera_centers(self) -> Float[Tensor, "n 3"]:
        """Camera centers of the source views in ball coordinates."""
        return (self.sources.cameras.positions - self.center) / self.radius

    def train(self, mode: bool = True) -> NlrMethod:
        """Clears caches of an earlier state."""
        self._inference_cache = self._mesh_proxy = None
        return super().train(mode)

    def segments(self, rays: Rays) -> RaySegments:
        """Part of the rays in the ball, in coordinates of the unit ball."""
        origins = (rays.origins - self.center) / self.radius
        whole = RaySegments(origins, rays.directions, rays.near / self.radius, rays.far / self.radius)
        return whole.within_ball(torch.zeros_like(self.center), 1.0)

    def select_sources(self, own: Tensor, rng: Rng) -> list[int]:
        """Source views of a training step."""
        count, total = self.settings.num_source_views, len(self.sources)
        if count < 0 or count >= total:
            return list(range(total))
        shown = own.unique().tolist()
        if self.settings.source_selection == "nearest" and shown:
            places = self.sources.cameras.positions
            order = (places - places[shown].mean(0)).norm(dim=-1).argsort()
        else:
            generator = rng.replicated().generator
            order = torch.randperm(total, generator=generator, device=generator.device)
        return sorted(index for index in order.tolist() if index not in shown)[:count]

    def learns_shape(self, step: int) -> bool:
        """Whether a step trains the shape: at first always, then at intervals, and if nothing else is trained."""
        settings = self.settings
        alone = settings.features == "rgb" and settings.blending != "learned"
        first = settings.num_joint_steps + (settings.num_mask_only_steps if self.masked else 0)
        return alone or step < first or step % settings.shape_update_interval == 0

    def is_mask_only_step(self, step: int) -> bool:
        """Whether a step uses silhouettes only."""
        return self.masked and step < self.settings.num_mask_only_steps and "shape" not in self.settings.frozen_parts

    def sharpness(self, step: int) -> float:
        """Sharpness of silhouette edges at a step [1 / radius]."""
        return self.settings.mask_sharpness * 2.0 ** min(
            step // self.settings.mask_sharpness_interval, self.settings.num_mask_sharpness_doublings
        )

    def visibility_tolerance(self, step: int) -> float:
        """Depth tolerance of the occlusion test at a step [radii of the ball]."""
        return max(
            self.settings.visibility_tolerance * 0.5 ** (step // self.settings.visibility_tolerance_interval),
            self.settings.min_visibility_tolerance,
        )

    def signed_distance(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Distance of scene points to the surface [scene units], negative inside."""
        return self.radius * self.sdf((points - self.center) / self.radius)

    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Density inside the surface, opaque within a few `BLUR` radii."""
        blur = BLUR * self.radius
        return torch.sigmoid(-self.signed_distance(points) / blur) / blur

    def normals(self, points: Float[Tensor, "p 3"], step: Float[Tensor, " p"], ndc: Ndc | None) -> Float[Tensor, "p 3"]:
        """Unit gradients of the distance."""
        return normalize_or_zero(self.sdf.gradient((points - self.center) / self.radius).detach())

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """Blended image colors of the points."""
        zero = torch.zeros_like(points[:, 0])
        image = torch.zeros_like(zero, dtype=torch.int64)
        rays = Rays(points, viewdirs, viewdirs, zero, zero, zero, image, points[:, :2])
        where = (points - self.center) / self.radius
        return self.blend_at_points(where, rays, RenderContext(torch.ones_like(self.center))).rgb.clamp(0, 1)

    def rays_per_step(self) -> int:
        """Number of pixels of a patch."""
        return self.settings.patch_size**2

    def param_groups(self) -> list[dict[str, Any]]:
        """The shape has its own learning rate."""
        shape = list(self.sdf.parameters())
        others = [p for name, p in self.named_parameters() if not name.startswith("sdf.")]
        groups: list[dict[str, Any]] = [{"params": shape, "lr_factor": self.settings.shape_learning_rate_factor}]
        return [*groups, {"params": others}] if others else groups

    def adaptable_parameters(self) -> list[str]:
        """Parameters of the parts that an initialization sets."""
        carried = {id(p) for name in self.settings.init_parts for p in self._parts()[name].parameters()}
        return [name for name, parameter in self.named_parameters() if id(parameter) in carried]

    def _parts(self) -> dict[str, nn.Module]:
        net = self.appearance_net
        parts = {"shape": self.sdf, "encoder": net.encoder, "blending": net.weights, "decoder": net.decoder}
        return {name: nn.Identity() if part is None else part for name, part in parts.items()}


def channel_of_blend(
    blend: BlendedSamples, name: str, rows: Int[Tensor, " p"], background: Float[Tensor, "r 3"]
) -> Float[Tensor, "r 3"]:
    """blended: colors before decoding; sources: a color per source view, mixed by weight."""
    shown = blend.rgb.clamp(0, 1) if name == "blended" else blend.by_source()
    return background.index_put((rows,), shown)


def color_error(found: Float[Tensor, "*n"], expected: Float[Tensor, "*n"], error: ColorLoss) -> Float[Tensor, "*n"]:
    """Error per element."""
    match error:
        case "l1":
            return F.l1_loss(found, expected, reduction="none")
        case "l2":
            return F.mse_loss(found, expected, reduction="none")
        case "smooth-l1":
            return F.smooth_l1_loss(found, expected, reduction="none")


def bounding_ball(scene: Scene) -> tuple[Float[Tensor, "3"], Float[Tensor, ""]]:
    """Center and radius of the ball in the region of interest, or around the visual hull if smaller."""
    whole, carved = scene.box, crop_to_silhouettes(scene)
    inscribed, about = (whole[1] - whole[0]).amin() / 2, BALL_MARGIN * (carved[1] - carved[0]).norm() / 2
    return (carved.mean(0), about) if about < inscribed else (whole.mean(0), inscribed)


def build_sdf(settings: Nlr) -> Sdf | GridSdf:
    """The configured signed distance field, initially a sphere."""
    if settings.backbone == "grid":
        levels, entries = settings.grid_num_levels, settings.grid_log2_hashmap_size
        return GridSdf(levels=levels, log2_entries=entries, finest=settings.grid_max_resolution)
    kind = settings.sdf_encoding
    encoding = (
        None
        if kind == "none"
        else make_frequencies(kind, settings.sdf_num_frequencies, sigma=settings.sdf_frequency_std)
    )
    return Sdf(
        width=settings.sdf_hidden_dim,
        depth=settings.sdf_num_layers,
        activation=settings.sdf_activation,
        encoding=encoding,
        skips=settings.sdf_skip_layers,
        geometric=settings.sdf_init == "geometric",
    )


def validate_scene(scene: Scene) -> None:
    """Raises `DataError` for scenes without usable source views."""
    if scene.ndc is not None:
        found, expected = "normalized device coordinates", "scene coordinates"
        raise DataError("method nlr", "space", found, expected, "add --layout inward, or use another method")
    if len(scene) < 2:
        found = f"{len(scene)} image"
        raise DataError("method nlr", "source views", found, "at least 2", "train on more images")
