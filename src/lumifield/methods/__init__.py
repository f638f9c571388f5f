"""Methods: the union of their settings; each has a name on the command line."""

from __future__ import annotations

from typing import get_args

from lumifield.methods.instant import Instant
from lumifield.methods.mip_nerf import MipNerf
from lumifield.methods.nerf import Nerf
from lumifield.methods.nerf_w import NerfW
from lumifield.methods.nlr import Nlr
from lumifield.methods.simple_nerf import SimpleNerf
from lumifield.runtime.config import hyphenated_name

Settings = Instant | MipNerf | Nerf | NerfW | Nlr | SimpleNerf

METHODS: dict[str, type[Settings]] = {hyphenated_name(kind): kind for kind in get_args(Settings)}


def method_name(settings: Settings) -> str:
    """Name of a method on the command line."""
    return hyphenated_name(type(settings))
