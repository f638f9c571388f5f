"""The methods that `train` and `meta-train` offer, each with its own options."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import OmitSubcommandPrefixes, subcommand

from lumifield.methods import Instant, MipNerf, Nerf, NerfW, Nlr, SimpleNerf

MethodChoice = Annotated[
    Annotated[Instant, subcommand("instant")]
    | Annotated[MipNerf, subcommand("mip-nerf")]
    | Annotated[Nerf, subcommand("nerf")]
    | Annotated[NerfW, subcommand("nerf-w")]
    | Annotated[Nlr, subcommand("nlr")]
    | Annotated[SimpleNerf, subcommand("simple-nerf")],
    OmitSubcommandPrefixes,
]
