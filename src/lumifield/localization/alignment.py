"""Direct image alignment: the pose from which colored surface points project to equal colors in an image.

The photometric error over all points is minimized by Levenberg-Marquardt steps in the tangent space of SE(3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lumifield.geometry.cameras import Cameras
from lumifield.geometry.poses import se3_retract

CAUCHY = 0.1
"""Scale of the Cauchy loss on color differences."""
GAIN_RANGE = (0.2, 5.0)
MIN_VISIBLE_FRACTION = 0.2
"""Minimum fraction of points in the image for a pose to be comparable."""
STEPS, CONVERGENCE = 20, 1e-4
DAMPING, DAMPING_UP, DAMPING_DOWN = 1e-2, 4.0, 0.25


@dataclass(frozen=True)
class SurfacePoints:
    """Surface points of a rendering [scene units] and their colors."""

    points: Float[Tensor, "p 3"]
    rgb: Float[Tensor, "p 3"]


@dataclass(frozen=True)
class ImageLevel:
    """A pyramid level of an image: camera at the origin, colors, and their gradients along x and y."""

    camera: Cameras
    rgb: Float[Tensor, "3 h w"]
    gradients: Float[Tensor, "6 h w"]

    @staticmethod
    def of(lens: Cameras, rgb: Float[Tensor, "h w 3"], scale: float) -> ImageLevel:
        """An image resized by `scale`; `lens` is its camera, with any pose."""
        camera = replace(lens, c2w=torch.eye(3, 4)[None]).resized(scale)
        width, height = camera.size[0].tolist()
        small = F.interpolate(rgb.permute(2, 0, 1)[None], (height, width), mode="bilinear", antialias=True)[0]
        down, across = torch.gradient(small, dim=(1, 2))
        return ImageLevel(camera, small, torch.cat([across, down]))


@dataclass(frozen=True)
class PointProjection:
    """Projection of surface points into an image with pose `c2w`.

    `local` are the points in camera coordinates, `within` is the mask of those in the image. `rgb` and `gradients` are
    colors and color gradients of the image there, after a per-channel gain and offset that fit them to the colors of
    the points; `error` is the residual.
    """

    c2w: Float[Tensor, "3 4"]
    local: Float[Tensor, "p 3"]
    within: Bool[Tensor, " p"]
    rgb: Float[Tensor, "p 3"]
    gradients: Float[Tensor, "p 3 2"]
    error: Float[Tensor, "p 3"]

    @property
    def is_comparable(self) -> bool:
        """Whether enough points project into the image."""
        return len(self.within) > 0 and bool(self.within.float().mean() >= MIN_VISIBLE_FRACTION)

    @property
    def cost(self) -> float:
        """Mean Cauchy loss of the residuals; infinite if the pose is not comparable."""
        if not self.is_comparable:
            return torch.inf
        return float(0.5 * CAUCHY**2 * torch.log1p((self.error[self.within] / CAUCHY) ** 2).mean())


def align_pose(surface: SurfacePoints, level: ImageLevel, c2w: Float[Tensor, "3 4"]) -> PointProjection:
    """The projection of least cost after Levenberg-Marquardt steps from the pose `c2w`."""
    now, damping = project_points(surface, level, c2w), DAMPING
    for _ in range(STEPS):
        trial = project_points(surface, level, se3_retract(now.c2w, gauss_newton_step(now, level.camera, damping)))
        if trial.cost >= now.cost:
            damping *= DAMPING_UP
            continue
        is_converged = trial.cost > (1 - CONVERGENCE) * now.cost
        now, damping = trial, damping * DAMPING_DOWN
        if is_converged:
            break
    return now


def project_points(surface: SurfacePoints, level: ImageLevel, c2w: Float[Tensor, "3 4"]) -> PointProjection:
    """Projects the points into the image with pose `c2w`."""
    local = (surface.points - c2w[:, 3]) @ c2w[:, :3]
    (xy,), (depth,) = level.camera.project(local)
    size = level.camera.size[0]
    within = (depth > 0) & (xy > 0).all(-1) & (xy < size).all(-1)
    place = (2 * xy / size - 1)[None, None]
    image = torch.cat([level.rgb, level.gradients])[None]
    found = F.grid_sample(image, place, padding_mode="border", align_corners=False)[0, :, 0].T
    rgb, across, down = found.split(3, -1)
    gain, offset = fit_gain_and_offset(rgb, surface.rgb, within)
    rgb = gain * rgb + offset
    gradients = gain[:, None] * torch.stack([across, down], -1)
    return PointProjection(c2w, local, within, rgb, gradients, rgb - surface.rgb)


def fit_gain_and_offset(
    observed: Float[Tensor, "p 3"], rendered: Float[Tensor, "p 3"], within: Bool[Tensor, " p"]
) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Per-channel gain and offset that fit colors `observed` to `rendered`, with robust weights.

    The image is fitted to the points: fitted the other way, points on a uniform wall would match every pose.
    """
    weight = within[:, None].expand(-1, 3).float()
    gain, offset = torch.ones(3), torch.zeros(3)
    for _ in range(2):
        total = weight.sum(0).clamp_min(1)
        mean_observed, mean_rendered = (weight * observed).sum(0) / total, (weight * rendered).sum(0) / total
        off = observed - mean_observed
        gain = (weight * off * (rendered - mean_rendered)).sum(0) / (weight * off**2).sum(0).clamp_min(1e-9)
        gain = gain.clamp(*GAIN_RANGE)
        offset = mean_rendered - gain * mean_observed
        weight = within[:, None] * cauchy_weights(gain * observed + offset - rendered)
    return gain, offset


def cauchy_weights(error: Float[Tensor, "*p"]) -> Float[Tensor, "*p"]:
    """Weights of the Cauchy loss: its derivative divided by the error."""
    return 1 / (1 + (error / CAUCHY) ** 2)


def gauss_newton_step(now: PointProjection, camera: Cameras, damping: float) -> Float[Tensor, "6"]:
    """Damped Gauss-Newton step: a rotation vector and a translation in camera coordinates."""
    local = now.local[now.within]
    jacobian = now.gradients[now.within] @ projection_jacobian(camera, local)
    weight = cauchy_weights(now.error[now.within])
    normal = torch.einsum("pc,pci,pcj->ij", weight, jacobian, jacobian).double()
    right_hand_side = torch.einsum("pc,pci,pc->i", weight, jacobian, now.error[now.within]).double()
    damped = normal + torch.diag(damping * normal.diagonal() + 1e-9)
    return -torch.linalg.solve(damped, right_hand_side).float()


def projection_jacobian(camera: Cameras, local: Float[Tensor, "p 3"]) -> Float[Tensor, "p 2 6"]:
    """Jacobian of projected points with respect to a small rotation and translation of the camera [pixels]."""
    with torch.enable_grad():
        free = local.detach().requires_grad_()
        observed = camera.project(free)[0][0]
        sides = [torch.autograd.grad(side.sum(), free, retain_graph=True)[0] for side in observed.unbind(-1)]
    along = torch.stack(sides, 1)
    # In camera coordinates a rotation w and a translation v of the camera move a point q by q x w - v.
    return torch.cat([torch.linalg.cross(along, local[:, None].expand_as(along)), -along], -1)


def correlation(a: Float[Tensor, "p 3"], b: Float[Tensor, "p 3"]) -> float:
    """Correlation of mean-free colors; 0 if there are none or all are equal."""
    if len(a) == 0:
        return 0.0
    a, b = a - a.mean(0), b - b.mean(0)
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9))
