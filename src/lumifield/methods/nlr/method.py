"""The module behind `nlr`: a surface is met, looked up in the images that see it, and the blend is decoded."""

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
from lumifield.methods.base import Method, RenderContext, Rendered
from lumifield.methods.nlr import Error, Nlr
from lumifield.methods.nlr.appearance import Appearance, Backdrop, Blend
from lumifield.methods.nlr.distance_grid import Distance, DistanceGrid, on_grid, refined
from lumifield.methods.nlr.looks import Look, mean_of, parts_of_a_pixel
from lumifield.methods.nlr.sdf import GridSdf, Sdf, frequencies
from lumifield.methods.nlr.skin import Skin, triangles
from lumifield.methods.nlr.sources import Sight, Sources
from lumifield.methods.nlr.sphere_tracing import Care, Segments, closest, hit_points, trace, trace_guided, unhidden
from lumifield.runtime.rng import Rng
from lumifield.volume.occupancy import crop_to_silhouettes

CARE = Care()
GRID = 48
"""Points a side of the grid of distances that tells what hides what."""
FINER = 4
"""How much finer the grid is that triangles are cut from."""
SPARE = 1.02
"""How much wider the ball is than what silhouettes leave."""
BLUR = 0.005
"""Depth over which the surface, taken for a density, sets in [radii of the ball]."""


class NlrMethod(Method):
    """A signed distance field in a ball about the object, and colors blended from the images (NLR++)."""

    surface_level = 0.0
    channels = ("blended", "sources")
    center: Tensor
    radius: Tensor
    distances: Tensor

    def __init__(self, settings: Nlr, scene: Scene) -> None:
        super().__init__()
        check(scene)
        self.settings, self.patch_size = settings, settings.patch_size
        self.masked = scene.background != "none"
        center, radius = ball_of(scene)
        self.register_buffer("center", center)
        self.register_buffer("radius", radius)
        self.register_buffer("distances", torch.ones(GRID, GRID, GRID))
        self.sources = Sources(scene)
        self.sdf = build_sdf(settings)
        self.appearance_net = Appearance(settings)
        self.backdrop = None if self.masked else Backdrop()
        if settings.imagenet is not None and scene.images is not None and self.appearance_net.encoder is not None:
            self.appearance_net.encoder.load_imagenet(settings.imagenet)
        for name in settings.frozen:
            self._parts()[name].requires_grad_(False)
        self._at_rest: tuple[Tensor, list[Tensor]] | None = None
        self._skin: Skin | None = None

    def forward(self, rays: Rays, context: RenderContext) -> Rendered:
        """Meet the surface, look it up, decode; a step of shape also compares silhouettes and slopes."""
        shape = context.rng is not None and self.learns_shape(context.step)
        if context.rng is not None and context.step % self.settings.renew_every == 0:
            self.distances.copy_(on_grid(self.sdf, GRID, self.distances.device))
        segments = self.segments(rays)
        if context.patch_size is not None and context.rng is None:
            look = self.through_pixels(rays, context.patch_size, context)
        else:
            look = self.traced(rays, segments, context, shape=shape)
        rows, blend, rgb = look.rows, look.blend, look.blend.rgb
        if context.patch_size is not None and len(rows):
            rgb = self.appearance_net.image(blend.features, rgb, rows, context.patch_size, len(rays))
        if context.rng is None:
            rgb = rgb.clamp(0, 1)
        solid = torch.zeros_like(rays.far).index_fill(0, rows, 1)
        behind = context.background.expand(len(rays), 3) if self.backdrop is None else self.backdrop(segments)
        return Rendered(
            rgb=behind.index_put((rows,), rgb),
            depth=rays.far.index_put((rows,), look.t),
            opacity=solid if self.backdrop is None else torch.ones_like(solid),
            samples=len(rays),
            penalties=self.penalties(context, context.rng) if shape and context.rng is not None else {},
            channels={name: channel(blend, name, rows, behind) for name in context.channels},
        )

    def traced(self, rays: Rays, segments: Segments, context: RenderContext, *, shape: bool) -> Look:
        """Which rays meet the surface, how far away, and what is looked up there."""
        rows = self.asked(rays, context).nonzero()[:, 0]
        if context.rng is None:
            t, hit = trace(self.sdf, segments[rows], CARE)
        else:
            t, hit = trace_guided(self.sdf, DistanceGrid(self.distances), segments[rows], CARE)
        rows, t = rows[hit], t[hit]
        met = segments[rows]
        points = hit_points(self.sdf, met, t) if shape else met.at(t)
        return Look(rows, t * self.radius, self.looked_up(points, rays[rows], context))

    def through_pixels(self, rays: Rays, size: tuple[int, int], context: RenderContext) -> Look:
        """The same of the pixels of an image, over several rays each."""
        looks = []
        for part in parts_of_a_pixel(self.settings.rays_a_side):
            own = offset_rays(rays, size, part)
            if context.fast_preview is None:
                looks.append(self.traced(own, self.segments(own), context, shape=False))
            else:
                looks.append(self.drawn(own, context.fast_preview.offset_pixels(part)))
        return mean_of(looks, len(rays))

    def drawn(self, rays: Rays, camera: Cameras) -> Look:
        """The same of the image of a camera, from the triangles and the features that are kept."""
        skin, (_, maps) = self.skin(), self.at_rest()
        met = skin.drawn(camera)
        rays = rays[met.rows]
        t = ((met.points - rays.origins) * rays.directions).sum(-1)
        sights = {index: self.sources.look(index, met.points, rays.directions) for index in range(len(self.sources))}
        sights = {index: replace(sight, seen=sight.seen & met.seen[index]) for index, sight in sights.items()}
        return Look(met.rows, t, self.appearance_net.blended(sights, self.sources, rays.directions, maps))

    def asked(self, rays: Rays, context: RenderContext) -> Bool[Tensor, " r"]:
        """Which rays may meet the surface: while learning those whose images have a color to compare with."""
        if context.rng is None:
            return torch.ones_like(rays.image, dtype=torch.bool)
        return self.sources.covers(rays) & (not self.is_mask_only_step(context.step))

    def losses(self, rendered: Rendered, batch: Batch) -> dict[str, Tensor]:
        """The error of the colors where rays truly meet the object (equation 6), and what steps of shape add."""
        counts = rendered.opacity if batch.alpha is None else rendered.opacity * (batch.alpha >= 0.5)
        error = compared(rendered.rgb, batch.rgb, self.settings.color_error).mean(-1)
        return {"rgb": (error * counts).sum() / counts.sum().clamp_min(1)} | rendered.penalties

    def looked_up(self, points: Float[Tensor, "p 3"], rays: Rays, context: RenderContext) -> Blend:
        """Blended features and colors of points of the ball that rays meet, each ray's own image left out
        while learning."""
        where = self.center + self.radius * points
        if context.rng is None:
            chosen, slack = list(range(len(self.sources))), self.settings.slack_least
            distances, maps = self.at_rest()
        else:
            chosen, slack = self.chosen(rays.image, context.rng), self.slack(context.step)
            distances, maps = self.distances, None
        sights = {index: self.sources.look(index, where, rays.directions) for index in chosen}
        if context.rng is not None:
            sights = {index: replace(sight, seen=sight.seen & (rays.image != index)) for index, sight in sights.items()}
        sights = self.unhidden(sights, points, DistanceGrid(distances), slack)
        return self.appearance_net.blended(sights, self.sources, rays.directions, maps)

    @torch.no_grad()
    def unhidden(
        self, sights: dict[int, Sight], points: Float[Tensor, "p 3"], distance: Distance, slack: float
    ) -> dict[int, Sight]:
        """The sights without the points of the ball that something hides from their cameras."""
        seen = torch.stack([sight.seen for sight in sights.values()])
        eyes = self.eyes[list(sights)]
        source, point = seen.nonzero(as_tuple=True)
        seen[source, point] = unhidden(distance, points[point], eyes[source], slack, CARE)
        return {index: replace(sight, seen=own) for (index, sight), own in zip(sights.items(), seen, strict=True)}

    def penalties(self, context: RenderContext, rng: Rng) -> dict[str, Tensor]:
        """What the shape is held to besides colors: slopes of 1, and the silhouettes (equations 7 to 9)."""
        count = max(self.settings.eikonal_points // rng.world, 1)
        slope = self.sdf.gradient(2 * rng.uniform(count, 3) - 1).norm(dim=-1)
        steep = compared(slope, torch.ones_like(slope), self.settings.eikonal_error)
        found = {"eikonal": self.settings.eikonal * steep.mean()}
        rays, rgb, solid = self.sources.drawn(max(self.settings.mask_rays // rng.world, 1), rng)
        segments = self.segments(rays)
        met = (segments.near < segments.far).nonzero()[:, 0]
        rays, rgb, solid, segments = rays[met], rgb[met], solid[met], segments[met]
        t = closest(DistanceGrid(self.distances), segments, self.settings.mask_samples)
        distance = self.sdf(segments.at(t))
        sharpness = self.sharpness(context.step)
        if self.backdrop is not None:
            opacity = torch.sigmoid(-sharpness * distance)[:, None]
            with torch.no_grad():
                matter = self.looked_up(segments.at(t), rays, context).rgb
            seen = opacity * matter + (1 - opacity) * self.backdrop(segments)
            return found | {"silhouette": (seen - rgb).abs().mean()}
        # Rays deep inside count, too: were they left out, those just outside would push edges inwards unopposed.
        error = F.binary_cross_entropy_with_logits(-sharpness * distance, solid.float(), reduction="sum")
        return found | {"silhouette": 100 / sharpness * error / solid.sum().clamp_min(1)}

    def before_step(self, step: int, rng: Rng) -> None:
        """Decides whether the step learns the shape."""
        self.sdf.requires_grad_(self.learns_shape(step) and "shape" not in self.settings.frozen)

    @torch.no_grad()
    def at_rest(self) -> tuple[Tensor, list[Tensor]]:
        """The distances as they are now and the features of the sources, kept until the training goes on."""
        if self._at_rest is None or self.training:
            distances = on_grid(self.sdf, GRID, self.distances.device)
            self._at_rest = distances, self.appearance_net.maps(self.sources)
        return self._at_rest

    @torch.no_grad()
    def skin(self) -> Skin:
        """The surface as triangles, and which source sees them, kept until the training goes on."""
        if self._skin is None or self.training:
            distances, _ = self.at_rest()
            places, faces = triangles(refined(self.sdf, distances, FINER))
            slack, eyes = self.settings.slack_least, self.eyes[:, None].expand(-1, len(places), 3)
            seen = torch.stack([unhidden(DistanceGrid(distances), places, eye, slack, CARE) for eye in eyes])
            self._skin = Skin(self.center + self.radius * places, faces, seen)
        return self._skin

    @property
    def eyes(self) -> Float[Tensor, "n 3"]:
        """Where the sources were taken from, in coordinates of the ball."""
        return (self.sources.cameras.positions - self.center) / self.radius

    def train(self, mode: bool = True) -> NlrMethod:
        """Forgets what was kept of another state."""
        self._at_rest = self._skin = None
        return super().train(mode)

    def segments(self, rays: Rays) -> Segments:
        """The part of rays in the ball, which is the unit ball from there on."""
        origins = (rays.origins - self.center) / self.radius
        whole = Segments(origins, rays.directions, rays.near / self.radius, rays.far / self.radius)
        return whole.within_ball(torch.zeros_like(self.center), 1.0)

    def chosen(self, own: Tensor, rng: Rng) -> list[int]:
        """The sources of a training step."""
        count, total = self.settings.sources, len(self.sources)
        if count < 0 or count >= total:
            return list(range(total))
        shown = own.unique().tolist()
        if self.settings.source_choice == "nearest" and shown:
            places = self.sources.cameras.positions
            order = (places - places[shown].mean(0)).norm(dim=-1).argsort()
        else:
            generator = rng.replicated().generator
            order = torch.randperm(total, generator=generator, device=generator.device)
        return sorted(index for index in order.tolist() if index not in shown)[:count]

    def learns_shape(self, step: int) -> bool:
        """Whether a step learns the shape: at the beginning, then every so often, and where there is nothing else."""
        settings = self.settings
        alone = settings.features == "rgb" and settings.blending != "learned"
        first = settings.shape_first + (settings.carve if self.masked else 0)
        return alone or step < first or step % settings.shape_every == 0

    def is_mask_only_step(self, step: int) -> bool:
        """Whether a step learns from silhouettes alone."""
        return self.masked and step < self.settings.carve and "shape" not in self.settings.frozen

    def sharpness(self, step: int) -> float:
        """Sharpness of the silhouettes' edge at a step [1 / unit of the ball]."""
        return self.settings.mask_sharpness * 2.0 ** min(
            step // self.settings.mask_period, self.settings.mask_doublings
        )

    def slack(self, step: int) -> float:
        """How far behind what a source sees a point may lie at a step [radii of the ball]."""
        return max(self.settings.slack * 0.5 ** (step // self.settings.slack_period), self.settings.slack_least)

    def inside(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """How deep inside the surface points lie [scene units], negative outside."""
        return -self.radius * self.sdf((points - self.center) / self.radius)

    def density(self, points: Float[Tensor, "p 3"]) -> Float[Tensor, " p"]:
        """Matter within the surface that is opaque a few times `BLUR` radii of the ball below it."""
        blur = BLUR * self.radius
        return torch.sigmoid(self.inside(points) / blur) / blur

    def normals(self, points: Float[Tensor, "p 3"], step: Float[Tensor, " p"], ndc: Ndc | None) -> Float[Tensor, "p 3"]:
        """The slopes of the distance, as unit vectors."""
        return normalize_or_zero(self.sdf.gradient((points - self.center) / self.radius).detach())

    @torch.no_grad()
    def colors(self, points: Float[Tensor, "p 3"], viewdirs: Float[Tensor, "p 3"]) -> Float[Tensor, "p 3"]:
        """The blend of what the images show of the points."""
        zero = torch.zeros_like(points[:, 0])
        image = torch.zeros_like(zero, dtype=torch.int64)
        rays = Rays(points, viewdirs, viewdirs, zero, zero, zero, image, points[:, :2])
        where = (points - self.center) / self.radius
        return self.looked_up(where, rays, RenderContext(torch.ones_like(self.center))).rgb.clamp(0, 1)

    def rays_per_step(self) -> int:
        """The pixels of a patch."""
        return self.patch_size**2

    def param_groups(self) -> list[dict[str, Any]]:
        """The shape learns at a rate of its own."""
        shape = list(self.sdf.parameters())
        others = [p for name, p in self.named_parameters() if not name.startswith("sdf.")]
        groups: list[dict[str, Any]] = [{"params": shape, "lr_factor": self.settings.shape_rate}]
        return [*groups, {"params": others}] if others else groups

    def adaptable_parameters(self) -> list[str]:
        """The parameters of the parts that a start brings along."""
        carried = {id(p) for name in self.settings.started for p in self._parts()[name].parameters()}
        return [name for name, parameter in self.named_parameters() if id(parameter) in carried]

    def _parts(self) -> dict[str, nn.Module]:
        net = self.appearance_net
        parts = {"shape": self.sdf, "encoder": net.encoder, "blending": net.weights, "decoder": net.decoder}
        return {name: nn.Identity() if part is None else part for name, part in parts.items()}


def channel(blend: Blend, name: str, rows: Int[Tensor, " p"], behind: Float[Tensor, "r 3"]) -> Float[Tensor, "r 3"]:
    """blended: the colors before they are decoded; sources: a color for each image, mixed as it counts."""
    shown = blend.rgb.clamp(0, 1) if name == "blended" else blend.by_source()
    return behind.index_put((rows,), shown)


def compared(found: Float[Tensor, "*n"], expected: Float[Tensor, "*n"], error: Error) -> Float[Tensor, "*n"]:
    """The error of each number."""
    match error:
        case "l1":
            return F.l1_loss(found, expected, reduction="none")
        case "l2":
            return F.mse_loss(found, expected, reduction="none")
        case "smooth-l1":
            return F.smooth_l1_loss(found, expected, reduction="none")


def ball_of(scene: Scene) -> tuple[Float[Tensor, "3"], Float[Tensor, ""]]:
    """Center and radius of the ball in the region of interest, or of a smaller one about what the silhouettes leave."""
    whole, carved = scene.box, crop_to_silhouettes(scene)
    inscribed, about = (whole[1] - whole[0]).amin() / 2, SPARE * (carved[1] - carved[0]).norm() / 2
    return (carved.mean(0), about) if about < inscribed else (whole.mean(0), inscribed)


def build_sdf(settings: Nlr) -> Sdf | GridSdf:
    """The distances of the settings, at first a sphere."""
    if settings.backbone == "grid":
        levels, entries = settings.grid_levels, settings.grid_log2_entries
        return GridSdf(levels=levels, log2_entries=entries, finest=settings.grid_finest)
    kind = settings.sdf_encoding
    encoding = None if kind == "none" else frequencies(kind, settings.sdf_bands, sigma=settings.sdf_sigma)
    return Sdf(
        width=settings.sdf_width,
        depth=settings.sdf_depth,
        activation=settings.sdf_activation,
        encoding=encoding,
        skips=settings.sdf_skips,
        geometric_resolutions=settings.sdf_start == "geometric",
    )


def check(scene: Scene) -> None:
    """Raises `DataError` for scenes whose surfaces no sources can color."""
    if scene.ndc is not None:
        found, expected = "normalized device coordinates", "scene coordinates"
        raise DataError("method nlr", "space", found, expected, "add --layout inward, or choose another method")
    if len(scene) < 2:
        found = f"{len(scene)} image"
        raise DataError("method nlr", "sources", found, "at least 2", "train on more images")
