"""Methods of surfaces that are built or known in closed form."""

from __future__ import annotations

import torch

from lumifield.data.scene import Scene
from lumifield.methods import Nlr
from lumifield.methods.nlr.method import NlrMethod
from scenes import NLR, RADIUS, ball


def built(settings: Nlr = NLR, scene: Scene | None = None) -> NlrMethod:
    torch.manual_seed(0)
    return settings.build(ball(4, 12) if scene is None else scene)


class TrueBall(torch.nn.Module):
    """The distance from the photographed ball, in the coordinates of a method."""

    def __init__(self, method: NlrMethod) -> None:
        super().__init__()
        self.center, self.radius = method.center, method.radius

    def forward(self, points):
        return (points + self.center / self.radius).norm(dim=-1) - RADIUS / self.radius


class Around(torch.nn.Module):
    """The distance from a sphere about the scene's origin, in units of the method's ball."""

    def __init__(self, method: NlrMethod, radius: torch.nn.Parameter) -> None:
        super().__init__()
        self.middle, self.unit, self.radius = -method.center / method.radius, method.radius, radius

    def forward(self, points):
        return (points - self.middle).norm(dim=-1) - self.radius / self.unit

    def gradient(self, points):
        return torch.nn.functional.normalize(points - self.middle, dim=-1)
