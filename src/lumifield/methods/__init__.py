"""Methods: their settings form a union, whose members have a name on the command line."""

from __future__ import annotations

from lumifield.methods.instant import Instant
from lumifield.methods.mip_nerf import MipNerf
from lumifield.methods.nerf import Nerf
from lumifield.methods.nerf_w import NerfW
from lumifield.methods.nlr import Nlr
from lumifield.methods.simple_nerf import SimpleNerf

Settings = Instant | MipNerf | Nerf | NerfW | Nlr | SimpleNerf

METHODS: dict[str, type[Settings]] = {
    "instant": Instant,
    "mip-nerf": MipNerf,
    "nerf": Nerf,
    "nerf-w": NerfW,
    "nlr": Nlr,
    "simple-nerf": SimpleNerf,
}


def method_name(settings: Settings) -> str:
    """Name of a method on the command line."""
    return next(kind for kind, settings_type in METHODS.items() if type(settings) is settings_type)
