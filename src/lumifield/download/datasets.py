"""The published datasets: names, URLs, scenes and terms of use."""

from __future__ import annotations

from dataclasses import dataclass

DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
SEVEN_SCENES = "https://download.microsoft.com/download/2/8/5/28564B23-0828-408F-8631-23B1EFF1DAC8"
CAMBRIDGE = "https://www.repository.cam.ac.uk/bitstream/handle/1810"
PHOTO_TOURISM = "https://www.cs.ubc.ca/research/kmyi_data/imw2020/TrainingData"
HEIDATA = "https://heidata.uni-heidelberg.de/api/access/datafile/:persistentId?persistentId=doi:10.11588/data"


@dataclass(frozen=True)
class DatasetArchive:
    """One zip or tar file of a dataset."""

    file: str
    """File name on disk."""
    scenes: tuple[str, ...]
    """Folders in the archive that become scenes; an archive of one scene may lack the folder."""
    url: str | None = None
    """URL for downloads without a browser; None if there is none."""
    sha256: str | None = None
    """Checksum of the file, if known."""


@dataclass(frozen=True)
class PublishedDataset:
    """A published dataset of one or more scenes."""

    name: str
    title: str
    page: str
    """URL of its web page."""
    terms: str
    """Terms of use."""
    archives: tuple[DatasetArchive, ...] = ()
    multiscale_of: str | None = None
    """The dataset of Blender scenes that this one is computed from."""


def _one_archive_per_scene(url: str, extension: str, *paths: str) -> tuple[DatasetArchive, ...]:
    """One archive per scene; a path may start with a folder below the URL."""
    scenes = [(path, path.rpartition("/")[2]) for path in paths]
    return tuple(DatasetArchive(scene + extension, (scene,), f"{url}/{path}{extension}") for path, scene in scenes)


NERF = "https://drive.google.com/drive/folders/128yBriW1IG_3NJ5Rp7APSTZsJqdJdfc1"
BLENDER_SCENES = ("chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship")
LLFF_SCENES = ("fern", "flower", "fortress", "horns", "leaves", "orchids", "room", "trex")

# Sizes and checksums are not published. A download logs its checksum, so that it can be added here.
DATASETS = (
    PublishedDataset(
        "nerf-synthetic",
        "the eight Blender scenes of NeRF, 800x800",
        NERF,
        "Creative Commons licenses of the models, some of them non-commercial",
        (DatasetArchive("nerf_synthetic.zip", BLENDER_SCENES, DRIVE + "18JxhpWD-4ZmuFKLzKlAw-w5PpzZxXOcG"),),
    ),
    PublishedDataset(
        "llff",
        "the eight forward-facing scenes of LLFF and NeRF",
        NERF,
        "see its page",
        (DatasetArchive("nerf_llff_data.zip", LLFF_SCENES, DRIVE + "16VnMcF1KJYxN9QId6TClMsZRahHNMW5g"),),
    ),
    PublishedDataset(
        "nerf-example",
        "only lego and fern, from the authors of NeRF",
        "https://github.com/bmild/nerf",
        "as for nerf-synthetic and llff",
        (
            DatasetArchive(
                "nerf_example_data.zip",
                ("lego", "fern"),
                "https://cseweb.ucsd.edu/~viscomp/projects/LF/papers/ECCV20/nerf/nerf_example_data.zip",
            ),
        ),
    ),
    PublishedDataset(
        "multicam",
        "the multiscale Blender scenes of mip-NeRF, computed locally",
        NERF,
        "as for nerf-synthetic",
        multiscale_of="nerf-synthetic",
    ),
    PublishedDataset(
        "cambridge",
        "Cambridge Landmarks",
        "https://mi.eng.cam.ac.uk/projects/relocalization/#dataset",
        "see its page",
        _one_archive_per_scene(
            CAMBRIDGE,
            ".zip",
            *("251342/KingsCollege", "251340/OldHospital", "251336/ShopFacade"),
            *("251294/StMarysChurch", "251291/GreatCourt", "251292/Street"),
        ),
    ),
    PublishedDataset(
        "7-scenes",
        "7-Scenes: color, depth and poses",
        "https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/",
        "non-commercial research",
        _one_archive_per_scene(
            SEVEN_SCENES, ".zip", "chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs"
        ),
    ),
    PublishedDataset(
        "7-scenes-depth",
        "rendered depth for 7-Scenes, for re-localization",
        "https://doi.org/10.11588/data/N07HKC",
        "see its page",
        (DatasetArchive("7scenes_depth.tar.gz", ("7scenes_depth",), f"{HEIDATA}/N07HKC/4PLEEJ"),),
    ),
    PublishedDataset(
        "photo-tourism",
        "internet photos of the Image Matching Challenge 2020, with cameras",
        "https://www.cs.ubc.ca/~kmyi/imw2020/data.html",
        "research; the photos have many owners",
        _one_archive_per_scene(
            PHOTO_TOURISM, ".tar.gz", "brandenburg_gate", "sacre_coeur", "taj_mahal", "trevi_fountain"
        ),
    ),
    PublishedDataset(
        "learnit",
        "ShapeNet renderings with splits, and poses and bounds for Photo Tourism",
        "https://drive.google.com/drive/folders/1SVHKRQXiRb98q4KHVEbj8eoWxjNS2QLW",
        "non-commercial research (ShapeNet)",
        (DatasetArchive("learnit.zip", ("learnit",)),),
    ),
    PublishedDataset(
        "dtu",
        "DTU as processed for MetaNLR++",
        "https://drive.google.com/drive/folders/1dne-NheNYMPVhT4jV-76OiBLUXmLt1xm",
        "research (DTU)",
        (DatasetArchive("dtu.zip", ("dtu",)),),
    ),
    PublishedDataset(
        "nlr",
        "the scenes of neural lumigraph rendering",
        "http://www.computationalimaging.org/publications/nlr/",
        "see its page",
        (DatasetArchive("nlr_dataset.zip", ("nlr_dataset",)),),
    ),
    PublishedDataset(
        "flying-chairs2",
        "FlyingChairs2: image pairs with optical flow, 31 GB",
        "https://lmb.informatik.uni-freiburg.de/resources/datasets/FlyingChairs.en.html#flyingchairs2",
        "research",
        (
            DatasetArchive(
                "FlyingChairs2.zip", ("FlyingChairs2",), "https://lmb.informatik.uni-freiburg.de/data/FlyingChairs2.zip"
            ),
        ),
    ),
)
