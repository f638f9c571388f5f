"""Direct alignment: the pose from which matter of known place and color looks as it does in an image.

The colors that the image has where the matter is seen are compared with the matter's own, all pixels at once; the
pose moves by Levenberg-Marquardt steps in the tangent space of rigid motions.
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
"""Beyond this difference of colors a pixel has less and less of a say."""
GAINS = (0.2, 5.0)
LEAST_SHARE = 0.2
"""A pose from which less of the matter than this is within the image is none to compare."""
STEPS, SETTLED = 20, 1e-4
DAMPING, CALMER, BOLDER = 1e-2, 4.0, 0.25


@dataclass(frozen=True)
class Matter:
    """Points that a rendering has met [scene units], and their colors."""

    points: Float[Tensor, "p 3"]
    rgb: Float[Tensor, "p 3"]


@dataclass(frozen=True)
class Level:
    """An image at one size: its camera, placed at the origin, its colors, and their slopes along x and y."""

    camera: Cameras
    rgb: Float[Tensor, "3 h w"]
    slopes: Float[Tensor, "6 h w"]

    @staticmethod
    def of(lens: Cameras, rgb: Float[Tensor, "h w 3"], scale: float) -> Level:
        """An image, its sides multiplied by `scale`; `lens` is its camera, wherever it stands."""
        camera = replace(lens, c2w=torch.eye(3, 4)[None]).resized(scale)
        width, height = camera.size[0].tolist()
        small = F.interpolate(rgb.permute(2, 0, 1)[None], (height, width), mode="bilinear", antialias=True)[0]
        down, across = torch.gradient(small, dim=(1, 2))
        return Level(camera, small, torch.cat([across, down]))


@dataclass(frozen=True)
class Sight:
    """What an image shows of some matter, if it was taken from `c2w`.

    `local` are the points in the camera's axes, `within` those inside the image. `rgb` are the image's colors
    there, `slopes` theirs along x and y, both after the gain and the offset of each channel that bring them nearest to
    the matter's; `error` is what remains.
    """

    c2w: Float[Tensor, "3 4"]
    local: Float[Tensor, "p 3"]
    within: Bool[Tensor, " p"]
    rgb: Float[Tensor, "p 3"]
    slopes: Float[Tensor, "p 3 2"]
    error: Float[Tensor, "p 3"]

    @property
    def comparable(self) -> bool:
        """Whether enough of the matter is in the image."""
        return len(self.within) > 0 and bool(self.within.float().mean() >= LEAST_SHARE)

    @property
    def cost(self) -> float:
        """Mean of Cauchy's measure of the errors; infinite where the pose is none to compare."""
        if not self.comparable:
            return torch.inf
        return float(0.5 * CAUCHY**2 * torch.log1p((self.error[self.within] / CAUCHY) ** 2).mean())


def aligned(matter: Matter, level: Level, c2w: Float[Tensor, "3 4"]) -> Sight:
    """The sight of least cost that steps from the pose `c2w` lead to."""
    now, damping = sight(matter, level, c2w), DAMPING
    for _ in range(STEPS):
        trial = sight(matter, level, se3_retract(now.c2w, step(now, level.camera, damping)))
        if trial.cost >= now.cost:
            damping *= CALMER
            continue
        settled = trial.cost > (1 - SETTLED) * now.cost
        now, damping = trial, damping * BOLDER
        if settled:
            break
    return now


def sight(matter: Matter, level: Level, c2w: Float[Tensor, "3 4"]) -> Sight:
    """What the image shows of the matter, if it was taken from `c2w`."""
    local = (matter.points - c2w[:, 3]) @ c2w[:, :3]
    (xy,), (depth,) = level.camera.project(local)
    size = level.camera.size[0]
    within = (depth > 0) & (xy > 0).all(-1) & (xy < size).all(-1)
    place = (2 * xy / size - 1)[None, None]
    image = torch.cat([level.rgb, level.slopes])[None]
    found = F.grid_sample(image, place, padding_mode="border", align_corners=False)[0, :, 0].T
    rgb, across, down = found.split(3, -1)
    gain, offset = light(rgb, matter.rgb, within)
    rgb = gain * rgb + offset
    slopes = gain[:, None] * torch.stack([across, down], -1)
    return Sight(c2w, local, within, rgb, slopes, rgb - matter.rgb)


def light(
    seen: Float[Tensor, "p 3"], own: Float[Tensor, "p 3"], within: Bool[Tensor, " p"]
) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """Gain and offset of each channel that bring the colors `seen` nearest to their `own`; large errors count less.

    It is the image that is fitted to the matter: the other way round a pose could hide in a plain wall.
    """
    weight = within[:, None].expand(-1, 3).float()
    gain, offset = torch.ones(3), torch.zeros(3)
    for _ in range(2):
        total = weight.sum(0).clamp_min(1)
        mean_seen, mean_own = (weight * seen).sum(0) / total, (weight * own).sum(0) / total
        off = seen - mean_seen
        gain = (weight * off * (own - mean_own)).sum(0) / (weight * off**2).sum(0).clamp_min(1e-9)
        gain = gain.clamp(*GAINS)
        offset = mean_own - gain * mean_seen
        weight = within[:, None] * trust(gain * seen + offset - own)
    return gain, offset


def trust(error: Float[Tensor, "*p"]) -> Float[Tensor, "*p"]:
    """Cauchy's weights, the slope of his measure over the error."""
    return 1 / (1 + (error / CAUCHY) ** 2)


def step(now: Sight, camera: Cameras, damping: float) -> Float[Tensor, "6"]:
    """The damped step towards the least cost: a rotation vector and a shift, in the camera's axes."""
    local = now.local[now.within]
    jacobian = now.slopes[now.within] @ motion(camera, local)
    weight = trust(now.error[now.within])
    normal = torch.einsum("pc,pci,pcj->ij", weight, jacobian, jacobian).double()
    towards = torch.einsum("pc,pci,pc->i", weight, jacobian, now.error[now.within]).double()
    damped = normal + torch.diag(damping * normal.diagonal() + 1e-9)
    return -torch.linalg.solve(damped, towards).float()


def motion(camera: Cameras, local: Float[Tensor, "p 3"]) -> Float[Tensor, "p 2 6"]:
    """How far points in the camera's axes move in its image as it turns and shifts a little [pixels]."""
    with torch.enable_grad():
        free = local.detach().requires_grad_()
        seen = camera.project(free)[0][0]
        sides = [torch.autograd.grad(side.sum(), free, retain_graph=True)[0] for side in seen.unbind(-1)]
    along = torch.stack(sides, 1)
    # In the camera's axes a turn w and a shift v move a point q by q x w - v.
    return torch.cat([torch.linalg.cross(along, local[:, None].expand_as(along)), -along], -1)


def alike(a: Float[Tensor, "p 3"], b: Float[Tensor, "p 3"]) -> float:
    """Correlation of colors, each channel about its mean; 0 where there are none, or all are the same."""
    if len(a) == 0:
        return 0.0
    a, b = a - a.mean(0), b - b.mean(0)
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-9))
