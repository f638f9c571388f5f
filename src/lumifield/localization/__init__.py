"""Views for visual localization (LENS), and where an image was taken from: the settings of each step, free of
torch, whose `apply` imports the rest.

Lengths are in world units. What is not given follows from the `spread` of the training cameras: the median distance
from their middle.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError
from lumifield.runtime.config import at_least

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Density:
    """Where matter is between the cameras: density in cubic cells (.npz), those that hold matter as points (.ply)."""

    out: Path | None = None
    """The .npz file; the points lie beside it (RUN/localize/density.npz)."""
    num_cells: int = 1_000_000
    """About so many cells."""
    margin: float | None = None
    """By how much the box exceeds the bounds of the training cameras (a quarter of their spread)."""
    density_threshold: float | None = None
    """Density of matter [1 / world unit] (such that a tenth of the spread stops half of the light)."""

    def __post_init__(self) -> None:
        at_least(1, self, "num_cells")
        at_least(0, self, "margin", "density_threshold")

    def apply(self, run: LoadedRun, progress: Progress) -> str:
        """Writes both files and says what is in them; raises `DataError` for bounds without a volume."""
        from lumifield.localization.lens import density

        return density.write(self, run, progress)


@dataclass(frozen=True)
class Select:
    """New views in free space near the training cameras, as a camera path (.json) and frusta beside it (.ply)."""

    density: Path | None = None
    """The file of `localize density` (RUN/localize/density.npz)."""
    out: Path | None = None
    """The .json file, which `render --path` reads, too; the frusta lie beside it (RUN/localize/views.json)."""
    places: Literal["grid", "path"] = "grid"
    """Where views may be: at the nodes of a grid, or round the training cameras."""
    num_views: int = 1000
    """How many views."""
    spacing: float | None = None
    """Distance of neighboring nodes of the grid, which then has at most `count` views (as wide as leaves `count`)."""
    min_clearance: float | None = None
    """Least distance from matter (a tenth of the spread)."""
    max_camera_distance: float | None = None
    """Largest distance from the nearest training camera (a quarter of the spread)."""
    max_offset: float | None = None
    """How far views are at most displaced at random, from their node or camera (grid: not at all; path: the reach)."""
    rotation_range: float = 9.0
    """Range of the random turn about each axis of the camera, from minus to plus half of it [degrees]."""
    seed: int = 0
    """Seed of the random numbers."""

    def __post_init__(self) -> None:
        at_least(1, self, "num_views")
        at_least(0, self, "min_clearance", "max_camera_distance", "max_offset", "rotation_range")
        if self.spacing is not None:
            at_least(1e-9, self, "spacing")
            if self.places == "path":
                raise DataError("select", "spacing", f"{self.spacing:g}", "none without a grid", "drop it")

    def apply(self, run: LoadedRun, progress: Progress) -> str:
        """Writes both files; raises `DataError` where there is too little free space, or none within the bounds."""
        from lumifield.localization.lens import select

        return select.write(self, run, progress)


@dataclass(frozen=True)
class Synthesize:
    """Images of new views as a sequence for the reader of the images; what passed by is not in them.

    Data in Cambridge layout gets `seq_synthesis`, all other a sequence of 7-Scenes with poses and depth. Where some
    images are there already, the others are added.
    """

    views: Path | None = None
    """The file of `localize select`, or any camera path (RUN/localize/views.json)."""
    out: Path | None = None
    """Folder of the sequence (RUN/localize/sequence)."""
    appearance: str | None = None
    """`mixed` from those of two random training images, that of the `nearest` one, their `mean`, or that of the
    image named (mixed; none for methods without embeddings)."""
    seed: int = 0
    """Seed of mixed appearances."""
    size: tuple[int, int] | None = None
    """Width and height of the images (those of the training)."""
    data: Path | None = None
    """Where the images are now, if they have moved since the training."""
    chunk: int | None = None
    """Rays rendered at once (as many as suit the device); halved when memory runs out."""

    def __post_init__(self) -> None:
        at_least(1, self, "size", "chunk")

    def apply(self, run: LoadedRun, progress: Progress) -> str:
        """Writes the sequence; raises `DataError` for unknown looks, or a folder that holds another sequence."""
        from lumifield.localization.lens import synthesize

        return synthesize.write(self, run, progress)


@dataclass(frozen=True)
class Pose:
    """Where images were taken from: poses refined until the field, rendered from there, looks the same."""

    image: Path | None = None
    """The image; without one those of --split."""
    split: str = "test"
    """Images of the run's own data, whose poses are known, so that errors can be told."""
    view_index: int | None = None
    """Only this one of the split."""
    focal: float | None = None
    """Focal length of --image [pixels] (as wide an angle as that of most training images)."""
    initial_poses: Path | None = None
    """A camera path (.json) with a pose for each image, to start there (at the training cameras that see most
    nearly the same)."""
    initial_error: tuple[float, float] | None = None
    """Start so many degrees and centimeters (hundredths of the world's unit) off the known pose_refinement."""
    seed: int = 0
    """Seed of the directions of --initial-error."""
    out: Path | None = None
    """Folder of poses.json, which `render --path` reads, too, summary.json and images (RUN/localize/pose)."""

    def __post_init__(self) -> None:
        at_least(1e-9, self, "focal")
        at_least(0, self, "initial_error")
        if self.initial_error is not None and (self.image is not None or self.initial_poses is not None):
            fix = "leave out --image and --initial-poses"
            raise DataError(
                "pose", "initial_error", "given", "none where no pose is known, or where a start is given", fix
            )
        if self.image is not None and self.view_index is not None:
            raise DataError("pose", "view_index", str(self.view_index), "none beside --image", "leave one of them out")

    def apply(self, run: LoadedRun, progress: Progress) -> str:
        """Writes what it finds, and says how well; raises `DataError` for images that are not there."""
        from lumifield.localization import pose_refinement

        return pose_refinement.find(self, run, progress)


@dataclass(frozen=True)
class Regressor:
    """A small network that tells the pose of an image from its pixels."""

    image_size: int = 64
    """Longer side of the images that it sees [pixels]."""
    steps: int = 2000
    """Training steps."""
    batch_size: int = 32
    """Images of a step."""
    lr: float = 1e-3
    """Learning rate, which falls to none by a cosine."""
    weight_decay: float = 1e-2
    """Decay of the weights."""
    dropout: float = 0.1
    """Share of the hidden features that are left out in a step."""
    noise_std: float = 0.1
    """Noise on the images, in units of their deviation."""

    def __post_init__(self) -> None:
        at_least(8, self, "image_size")
        at_least(2, self, "batch_size")
        at_least(1, self, "steps")
        at_least(0, self, "lr", "weight_decay", "dropout", "noise_std")


@dataclass(frozen=True)
class Baseline:
    """How far off a small pose regressor is on a split, after learning without and with synthetic views."""

    synthetic: Path | None = None
    """What `synthesize` wrote, or a scene whose training images are in the world of the run's data."""
    split: str = "test"
    """Which images are judged (val: to choose settings)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """A network for each."""
    network: Regressor = field(default_factory=Regressor)
    """The network and its training."""
    out: Path | None = None
    """Folder of pose_regression.json and poses.json, a start for `pose` (RUN/localize/baseline)."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise DataError("baseline", "seeds", "empty", "one or more", "name one")

    def apply(self, run: LoadedRun, progress: Progress) -> str:
        """Writes what it measures, and says it; raises `DataError` where there are no images."""
        from lumifield.localization import pose_regression

        return pose_regression.measure(self, run, progress)
