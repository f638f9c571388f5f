"""`lumifield synthesize-data`: procedural scenes, and scenes derived from others. Importing it does not load torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitSubcommandPrefixes, arg, subcommand

from lumifield.cli import progress
from lumifield.data import Source
from lumifield.synthetic import FlowPairs, ObjectCaptures, ObjectCategory, StillLife, Tourists


@dataclass(frozen=True)
class MultiscaleScene:
    """A Blender scene at several scales by exact block means, in the multicam format of mip-NeRF."""

    scene: Annotated[Path, arg(name="from")]
    """Folder of the Blender scene."""
    num_scales: int = 4
    """Number of scales, each half the size of the previous one."""
    premultiply_alpha: bool = False
    """Weight colors by alpha in the means, which avoids dark silhouette edges (off in the published dataset)."""


@dataclass(frozen=True)
class PerturbedScene:
    """A Blender scene with perturbed training images: color casts, occluders, or both (as in NeRF-W)."""

    scene: Annotated[Path, arg(name="from")]
    """Folder of the Blender scene."""
    kind: Literal["color", "occluder", "both"] = "both"
    """Perturbation of all training images except the first."""
    seed: int = 0
    """Seed of the perturbations."""


@dataclass(frozen=True)
class ConvertedScene:
    """A scene of any format as learnit's landmarks, as a COLMAP model without points, or in the DTU format."""

    scene: Annotated[Path, arg(name="from")]
    """Folder of the scene."""
    format: Literal["learnit", "colmap", "dtu"] = "learnit"
    """Dataset format."""


@dataclass(frozen=True)
class SynthesizeCommand:
    """Generate a synthetic dataset with exact ground truth, or derive one from an existing scene."""

    settings: Annotated[
        Annotated[StillLife, subcommand("still-life")]
        | Annotated[Tourists, subcommand("tourists")]
        | Annotated[ObjectCategory, subcommand("object-category")]
        | Annotated[ObjectCaptures, subcommand("object-captures")]
        | Annotated[FlowPairs, subcommand("flow-pairs")]
        | Annotated[MultiscaleScene, subcommand("multiscale")]
        | Annotated[PerturbedScene, subcommand("perturbed")]
        | Annotated[ConvertedScene, subcommand("converted")],
        OmitSubcommandPrefixes,
    ]
    out: Path
    """Folder of the dataset, which must be new or empty."""

    def run(self) -> None:
        """Writes the dataset."""
        with progress.progress_bar("images") as report_progress:
            match self.settings:
                case MultiscaleScene(scene, num_scales, premultiply_alpha):
                    from lumifield.synthetic.multiscale import MultiscaleSettings, write_multiscale_scene

                    write_multiscale_scene(scene, self.out, MultiscaleSettings(num_scales, premultiply_alpha))
                case PerturbedScene(scene, kind, seed):
                    from lumifield.synthetic.perturbations import perturb_scene

                    perturb_scene(scene, self.out, kind, seed)
                case ConvertedScene(scene, layout):
                    from lumifield.data.convert import convert

                    convert(Source(scene), self.out, layout, report_progress)
                case _:
                    from lumifield.synthetic import synthesize_data

                    synthesize_data(self.settings, self.out, report_progress)
        print(self.out)
