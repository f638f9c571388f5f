"""ShapeNet objects as rendered for learnit: a folder per object with `transforms.json` and images."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from lumifield.data import Source, held_out_views, image_files, transforms_file
from lumifield.data.capture import CaptureFiles
from lumifield.data.metadata_files import read_metadata
from lumifield.data.readers import blender
from lumifield.data.scene import Scene
from lumifield.errors import DataError

LAYOUT = "transforms.json (ShapeNet)"
# An image name with a file extension, in a list of frames.
NAME_WITH_EXTENSION = re.compile(rb'"file_path"\s*:\s*"[^"]*\.\w+"')


def matches(folder: Path) -> bool:
    """Whether there is a single file with a field of view, and image names without extension."""
    path = folder / "transforms.json"
    if transforms_file.find_split_file(folder) is not None or not path.is_file():
        return False
    content = read_metadata(path)
    return b'"camera_angle_x"' in content and b'"fl_x"' not in content and not NAME_WITH_EXTENSION.search(content)


def open_files(source: Source) -> CaptureFiles:
    """Splits of a hold-out; by default the second half of the frames is held out, as in learnit."""
    path = source.data / "transforms.json"
    content = transforms_file.load_listing(path)
    # Leading folders of a name are those of the machine that rendered the object.
    listed = [frame | {"file_path": PurePosixPath(frame["file_path"]).name} for frame in content["frames"]]

    def locate(split: str) -> tuple[Scene, image_files.ImageFiles]:
        if source.hold_out != "auto":
            kept = transforms_file.existing_frames(path, listed)
            positions = transforms_file.frame_poses(path, [frame for frame, _ in kept])[:, :, 3]
            rows = held_out_views.split_rows(source, split, positions)
            return blender.scene_of_listing(source, path, content, [kept[row] for row in rows])
        half = (len(listed) + 1) // 2
        chosen = listed[half:] if split == "test" else listed[:half]
        if not chosen:
            raise DataError(path, f"{split} split", "empty", "two frames or more", "set hold_out to none")
        return blender.scene_of_listing(source, path, content, transforms_file.existing_frames(path, chosen))

    return CaptureFiles(held_out_views.split_names(source), locate)
