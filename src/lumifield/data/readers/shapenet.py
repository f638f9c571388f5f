"""Objects of ShapeNet as learnit renders them: a folder an object, with `transforms.json` and images beside it."""

from __future__ import annotations

from pathlib import PurePosixPath

from lumifield.data import Source, held_out_views, image_files, transforms_file
from lumifield.data.reader import Reader
from lumifield.data.readers import blender
from lumifield.data.scene import Scene
from lumifield.errors import DataError


def shapenet_splits(source: Source) -> tuple[str, ...]:
    """Train and test, or train alone where nothing is held out."""
    return held_out_views.split_names(source)


def shapenet_cameras(source: Source, split: str) -> tuple[Scene, image_files.ImageFiles]:
    """One split without its pixels, and the files that hold them; the scene frame is the world frame.

    The first half of the frames is learned from, the second is held out, as in learnit.
    """
    path = source.data / "transforms.json"
    content = transforms_file.load_listing(path)
    # Only the last part of a name counts: the folders before it are those of whoever rendered the object.
    listed = [frame | {"file_path": PurePosixPath(frame["file_path"]).name} for frame in content["frames"]]
    if source.hold_out != "auto":
        kept = transforms_file.existing_frames(path, listed)
        positions = transforms_file.frame_poses(path, [frame for frame, _ in kept])[:, :, 3]
        return blender.scene_of_listing(
            source, path, content, [kept[row] for row in held_out_views.split_rows(source, split, positions)]
        )
    half = (len(listed) + 1) // 2
    chosen = listed[half:] if split == "test" else listed[:half]
    if not chosen:
        raise DataError(path, f"{split} split", "empty", "two frames or more", "set hold_out to none")
    return blender.scene_of_listing(source, path, content, transforms_file.existing_frames(path, chosen))


READER = Reader(splits=shapenet_splits, cameras=shapenet_cameras)
