"""The methods that `train` and `meta-train` offer, each with its own options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from tyro.conf import OmitSubcommandPrefixes, subcommand

from lumifield.methods import METHODS, Settings

if TYPE_CHECKING:
    MethodChoice = Settings
else:
    commands = tuple(Annotated[kind, subcommand(name)] for name, kind in METHODS.items())
    MethodChoice = Annotated[Union[commands], OmitSubcommandPrefixes]  # noqa: UP007
