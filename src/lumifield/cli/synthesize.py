"""`lumifield synthesize-data`: procedural scenes, and scenes made of others. Nothing here imports torch at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitSubcommandPrefixes, arg, subcommand

from lumifield.cli import progress
from lumifield.data import Source
from lumifield.synthetic import FlowPairs, ObjectCaptures, ObjectCategory, StillLife, Tourists


@dataclass(frozen=True)
class Multiscale:
    """The pyramid of sizes of a Blender scene, by exact means (mip-NeRF's multicam layout)."""

    scene: Annotated[Path, arg(name="from")]
    """Folder of the Blender scene."""
    scales: int = 4
    """How many sizes, each half the one before."""
    premultiplied: bool = False
    """Let colors count by their alpha in the means, which darkens no rim (the published set does not)."""


@dataclass(frozen=True)
class Perturbed:
    """A Blender scene with training images of varying color, or covered in part, or both (NeRF-W's test)."""

    scene: Annotated[Path, arg(name="from")]
    """Folder of the Blender scene."""
    kind: Literal["color", "occluder", "both"] = "both"
    """What happens to every training image but the first."""
    seed: int = 0
    """Seed of the random numbers."""


@dataclass(frozen=True)
class Converted:
    """A scene of any format as learnit's landmarks, as a COLMAP model without points, or in DTU's layout."""

    scene: Annotated[Path, arg(name="from")]
    """Folder of the scene."""
    format: Literal["learnit", "colmap", "dtu"] = "learnit"
    """Layout on disk."""


@dataclass(frozen=True)
class SynthesizeCommand:
    """Make a procedural scene with exact truth, or another scene of one that is there."""

    kind: Annotated[
        Annotated[StillLife, subcommand("still-life")]
        | Annotated[Tourists, subcommand("tourists")]
        | Annotated[ObjectCategory, subcommand("family")]
        | Annotated[ObjectCaptures, subcommand("captures")]
        | Annotated[FlowPairs, subcommand("flow-pairs")]
        | Annotated[Multiscale, subcommand("multiscale")]
        | Annotated[Perturbed, subcommand("perturbed")]
        | Annotated[Converted, subcommand("converted")],
        OmitSubcommandPrefixes,
    ]
    out: Path
    """Folder of the scene, made here."""

    def run(self) -> None:
        """Makes the scene."""
        with progress.progress_bar("images") as note:
            match self.kind:
                case Multiscale(scene, scales, premultiplied):
                    from lumifield.synthetic.multiscale import MultiscaleSettings, write_multiscale

                    write_multiscale(scene, self.out, MultiscaleSettings(scales, premultiplied))
                case Perturbed(scene, kind, seed):
                    from lumifield.synthetic.perturbations import perturb_scene

                    perturb_scene(scene, self.out, kind, seed)
                case Converted(scene, layout):
                    from lumifield.data.convert import convert

                    convert(Source(scene), self.out, layout, note)
                case StillLife() | Tourists() | ObjectCategory() | ObjectCaptures() | FlowPairs():
                    from lumifield.synthetic import synthesize_data

                    synthesize_data(self.kind, self.out, note)
        print(self.out)
