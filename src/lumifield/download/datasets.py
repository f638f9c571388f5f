"""The table of published data sets: names, addresses, scenes, terms."""

from __future__ import annotations

from dataclasses import dataclass

DRIVE = "https://drive.usercontent.google.com/download?export=download&confirm=t&id="
SEVEN_SCENES = "https://download.microsoft.com/download/2/8/5/28564B23-0828-408F-8631-23B1EFF1DAC8"
CAMBRIDGE = "https://www.repository.cam.ac.uk/bitstream/handle/1810"
PHOTO_TOURISM = "https://www.cs.ubc.ca/research/kmyi_data/imw2020/TrainingData"
HEIDATA = "https://heidata.uni-heidelberg.de/api/access/datafile/:persistentId?persistentId=doi:10.11588/data"


@dataclass(frozen=True)
class DatasetArchive:
    """One zip or tar file of a set."""

    file: str
    """Its name on disk."""
    scenes: tuple[str, ...]
    """The folders in it that become scenes; an archive of one scene may lack the folder."""
    url: str | None = None
    """Where it can be had without a browser; None: nowhere."""
    sha256: str | None = None
    """Of the whole file, where it is known."""


@dataclass(frozen=True)
class PublishedDataset:
    """A published set of scenes."""

    name: str
    title: str
    page: str
    """Where people find it."""
    terms: str
    """What it may be used for."""
    archives: tuple[DatasetArchive, ...] = ()
    pyramids_of: str | None = None
    """The set of Blender scenes that this one is made from."""


def _one_each(address: str, ending: str, *names: str) -> tuple[DatasetArchive, ...]:
    """An archive for each scene; a name may start with a folder of the address."""
    files = [(name, name.rpartition("/")[2]) for name in names]
    return tuple(DatasetArchive(scene + ending, (scene,), f"{address}/{name}{ending}") for name, scene in files)


NERF = "https://drive.google.com/drive/folders/128yBriW1IG_3NJ5Rp7APSTZsJqdJdfc1"
BLENDER_SCENES = ("chair", "drums", "ficus", "hotdog", "lego", "materials", "mic", "ship")
LLFF_SCENES = ("fern", "flower", "fortress", "horns", "leaves", "orchids", "room", "trex")

# Sizes and checksums are not published. A download says its checksum, so that it can be entered here.
DATASETS = (
    PublishedDataset(
        "nerf-synthetic",
        "NeRF's eight Blender scenes, 800x800",
        NERF,
        "the models have Creative Commons licenses, some of them without commercial use",
        (DatasetArchive("nerf_synthetic.zip", BLENDER_SCENES, DRIVE + "18JxhpWD-4ZmuFKLzKlAw-w5PpzZxXOcG"),),
    ),
    PublishedDataset(
        "llff",
        "the eight forward-facing scenes of LLFF and NeRF",
        NERF,
        "as its page says",
        (DatasetArchive("nerf_llff_data.zip", LLFF_SCENES, DRIVE + "16VnMcF1KJYxN9QId6TClMsZRahHNMW5g"),),
    ),
    PublishedDataset(
        "nerf-example",
        "lego and fern alone, from the authors of NeRF",
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
        "mip-NeRF's pyramids of the eight Blender scenes, made here",
        NERF,
        "as for nerf-synthetic",
        pyramids_of="nerf-synthetic",
    ),
    PublishedDataset(
        "cambridge",
        "Cambridge Landmarks",
        "https://mi.eng.cam.ac.uk/projects/relocalization/#dataset",
        "as its page says",
        _one_each(
            CAMBRIDGE,
            ".zip",
            *("251342/KingsCollege", "251340/OldHospital", "251336/ShopFacade"),
            *("251294/StMarysChurch", "251291/GreatCourt", "251292/Street"),
        ),
    ),
    PublishedDataset(
        "7-scenes",
        "7-Scenes, color, depth and poses",
        "https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/",
        "research without commercial use",
        _one_each(SEVEN_SCENES, ".zip", "chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs"),
    ),
    PublishedDataset(
        "7-scenes-depth",
        "rendered depth for 7-Scenes, for re-localization",
        "https://doi.org/10.11588/data/N07HKC",
        "as its page says",
        (DatasetArchive("7scenes_depth.tar.gz", ("7scenes_depth",), f"{HEIDATA}/N07HKC/4PLEEJ"),),
    ),
    PublishedDataset(
        "photo-tourism",
        "internet images of the image-matching challenge 2020, with cameras",
        "https://www.cs.ubc.ca/~kmyi/imw2020/data.html",
        "the images have many owners; research",
        _one_each(PHOTO_TOURISM, ".tar.gz", "brandenburg_gate", "sacre_coeur", "taj_mahal", "trevi_fountain"),
    ),
    PublishedDataset(
        "learnit",
        "ShapeNet renderings with splits, and poses and bounds for Photo Tourism",
        "https://drive.google.com/drive/folders/1SVHKRQXiRb98q4KHVEbj8eoWxjNS2QLW",
        "ShapeNet is for research without commercial use",
        (DatasetArchive("learnit.zip", ("learnit",)),),
    ),
    PublishedDataset(
        "dtu",
        "DTU as processed for MetaNLR++",
        "https://drive.google.com/drive/folders/1dne-NheNYMPVhT4jV-76OiBLUXmLt1xm",
        "DTU is for research",
        (DatasetArchive("dtu.zip", ("dtu",)),),
    ),
    PublishedDataset(
        "nlr",
        "the scenes of neural lumigraph rendering",
        "http://www.computationalimaging.org/publications/nlr/",
        "as its page says",
        (DatasetArchive("nlr_dataset.zip", ("nlr_dataset",)),),
    ),
    PublishedDataset(
        "flying-chairs2",
        "FlyingChairs2, pairs with optical flow, 31 GB",
        "https://lmb.informatik.uni-freiburg.de/resources/datasets/FlyingChairs.en.html#flyingchairs2",
        "research",
        (
            DatasetArchive(
                "FlyingChairs2.zip", ("FlyingChairs2",), "https://lmb.informatik.uni-freiburg.de/data/FlyingChairs2.zip"
            ),
        ),
    ),
)
