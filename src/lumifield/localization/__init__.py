"""Settings of visual localization: novel views for pose regression (LENS), pose refinement, and a pose regression
baseline.

Lengths are in world units. Defaults are relative to the spread of the training cameras: the median distance from their
mean position. This module is free of torch; `apply` imports the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lumifield.errors import DataError
from lumifield.runtime.config import check_min

if TYPE_CHECKING:
    from lumifield.runs.run_folder import LoadedRun

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Density:
    """Density on a voxel grid around the training cameras (.npz), and its occupied cells as a point cloud (.ply)."""

    out: Path | None = None
    """Output .npz file; the point cloud is written next to it (RUN/localize/density.npz)."""
    num_cells: int = 1_000_000
    """Approximate number of grid cells."""
    margin: float | None = None
    """Margin of the grid around the training cameras [world units] (a quarter of the camera spread)."""
    density_threshold: float | None = None
    """Density above which a cell is occupied [1 / world unit] (transmittance 0.5 over a tenth of the camera spread)."""

    def __post_init__(self) -> None:
        check_min(self, num_cells=1, margin=0, density_threshold=0)

    def apply(self, run: LoadedRun, progress: Progress) -> str:
        """Writes both files and returns a summary; raises `DataError` if the grid has no volume."""
        from lumifield.localization.lens import density

        return density.write_density(self, run, progress)


@dataclass(frozen=True)
class Select:
    """Novel views in free space near the training cameras, as a camera path (.json) and camera frusta (.ply)."""

    density: Path | None = None
    """Density file of `localize density` (RUN/localize/density.npz)."""
    out: Path | None = None
    """Output .json file, readable by `render --path`; frusta are written next to it (RUN/localize/views.json)."""
    places: Literal["grid", "path"] = "grid"
    """Candidate positions: nodes of a grid, or random offsets from the training cameras."""
    num_views: int = 1000
    """Number of views."""
    spacing: float | None = None
    """Grid spacing [world units] (chosen to give `num_views` free nodes); with it fewer views may be selected."""
    min_clearance: float | None = None
    """Minimum distance to occupied cells [world units] (a tenth of the camera spread)."""
    max_camera_distance: float | None = None
    """Maximum distance to the nearest training camera [world units] (a quarter of the camera spread)."""
    max_offset: float | None = None
    """Maximum random offset from the node or camera [world units] (grid: 0; path: `max_camera_distance`)."""
    rotation_range: float = 9.0
    """Range of the random rotation about each camera axis, from minus to plus half of it [degrees]."""
    seed: int = 0
    """Random seed."""

    def __post_init__(self) -> None:
        check_min(self, num_views=1, min_clearance=0, max_camera_distance=0, max_offset=0, rotation_range=0)
        if self.spacing is not None:
            check_min(self, spacing=1e-09)
            if self.places == "path":
                raise DataError("select", "spacing", f"{self.spacing:g}", "none with --places path", "drop it")

    def apply(self, run: LoadedRun, progress: Progress) -> str:
        """Writes both files and returns a summary; raises `DataError` if there is too little free space."""
        from lumifield.localization.lens import select

        return select.write_novel_views(self, run, progress)


@dataclass(frozen=True)
class Synthesize:
    """Renders novel views without transient objects as a sequence in the format of the training data.

    Cambridge data gets `seq_synthesis`; all other data gets a 7-Scenes sequence with poses and depth. Existing images
    are kept, missing ones are added.
    """

    views: Path | None = None
    """Camera path: the file of `localize select` or any other (RUN/localize/views.json)."""
    out: Path | None = None
    """Output folder (RUN/localize/sequence)."""
    appearance: str | None = None
    """Appearance embedding: `mixed` (random mix of two training images), `nearest`, `mean`, or a training image by name
    (mixed; none for methods without embeddings)."""
    seed: int = 0
    """Random seed of mixed appearances."""
    size: tuple[int, int] | None = None
    """Width and height of the images [pixels] (those of the training images)."""
    data: Path | None = None
    """Folder of the training images, if it has moved since training."""
    chunk: int | None = None
    """Rays rendered at once (chosen by the device; halved if memory runs out)."""

    def __post_init__(self) -> None:
        check_min(self, size=1, chunk=1)

    def apply(self, run: LoadedRun, progress: Progress) -> str:
        """Writes the sequence; raises `DataError` for an unknown appearance or a folder with another sequence."""
        from lumifield.localization.lens import synthesize

        return synthesize.write_sequence(self, run, progress)


@dataclass(frozen=True)
class Pose:
    """Camera pose of an image: refined until a rendering from it matches the image."""

    image: Path | None = None
    """Image file (all images of --split)."""
    split: str = "test"
    """Split of the run's data, with known poses, so that errors are reported."""
    view_index: int | None = None
    """Localize a single image of the split."""
    focal: float | None = None
    """Focal length of --image [pixels] (the field of view of most training images)."""
    initial_poses: Path | None = None
    """Camera path (.json) with an initial pose per image (the most similar training views)."""
    initial_error: tuple[float, float] | None = None
    """Initialize with the known pose perturbed by this many degrees and hundredths of a world unit."""
    seed: int = 0
    """Random seed of --initial-error."""
    out: Path | None = None
    """Output folder for poses.json (readable by `render --path`), summary.json and images (RUN/localize/pose)."""

    def __post_init__(self) -> None:
        check_min(self, focal=1e-09, initial_error=0)
        if self.initial_error is not None and (self.image is not None or self.initial_poses is not None):
            fix = "leave out --image and --initial-poses"
            raise DataError(
                "pose", "initial_error", "given", "none with --image (pose unknown) or --initial-poses", fix
            )
        if self.image is not None and self.view_index is not None:
            raise DataError("pose", "view_index", str(self.view_index), "none with --image", "leave one of them out")

    def apply(self, run: LoadedRun, progress: Progress) -> str:
        """Writes poses and errors and returns a summary; raises `DataError` for missing images."""
        from lumifield.localization import pose_refinement

        return pose_refinement.refine_and_write(self, run, progress)


@dataclass(frozen=True)
class Regressor:
    """A small network that regresses the camera pose of an image."""

    image_size: int = 64
    """Longer side of the input images [pixels]."""
    steps: int = 2000
    """Training steps."""
    batch_size: int = 32
    """Images per step."""
    lr: float = 1e-3
    """Initial learning rate, decayed to zero with a cosine."""
    weight_decay: float = 1e-2
    """Weight decay."""
    dropout: float = 0.1
    """Dropout rate of the hidden layer."""
    noise_std: float = 0.1
    """Standard deviation of noise added to the normalized images."""

    def __post_init__(self) -> None:
        check_min(self, image_size=8, batch_size=2, steps=1, lr=0, weight_decay=0, dropout=0, noise_std=0)


@dataclass(frozen=True)
class Baseline:
    """Pose errors of a small pose regressor, trained without and with synthetic views."""

    synthetic: Path | None = None
    """Sequence of `localize synthesize`, or a scene whose training images share the world of the run."""
    split: str = "test"
    """Split to evaluate (val: to choose settings)."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Random seeds; one network per seed."""
    network: Regressor = field(default_factory=Regressor)
    """The network and its training."""
    out: Path | None = None
    """Output folder for baseline.json and poses.json, an initialization for `pose` (RUN/localize/baseline)."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise DataError("baseline", "seeds", "empty", "one or more", "name one")

    def apply(self, run: LoadedRun, progress: Progress) -> str:
        """Writes and returns the errors; raises `DataError` if there are no images."""
        from lumifield.localization import pose_regression

        return pose_regression.measure(self, run, progress)
