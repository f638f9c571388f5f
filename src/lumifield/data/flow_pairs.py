"""FlyingChairs and FlyingChairs2: image pairs with ground truth optical flow."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lumifield.data import check_folder, image_files
from lumifield.errors import DataError
from lumifield.runtime.optical_flow import read_flow

# Minimum magnitude of unknown flow (Middlebury format).
UNKNOWN = 1e9
# Suffixes of the flow file, and of its source, target and occlusion: backward flow, if there is one.
TWO = ("-flow_10.flo", ("-img_0.png", "-img_1.png", "-occ_10.png"))
ONE = (("-gt.flo", "-img1.ppm", "-img0.ppm"), ("_flow.flo", "_img2.ppm", "_img1.ppm"))


@dataclass(frozen=True)
class ImagePair:
    """Two images: pixel `p` of the target corresponds to `p + flow(p)` in the source, where `visible`.

    The flow is in pixels, x first. FlyingChairs2 has flow from the second image to the first with occlusions;
    FlyingChairs has flow from the first to the second, and every pixel that stays in the image counts as visible.
    """

    source: UInt8[Tensor, "h w 3"]
    target: UInt8[Tensor, "h w 3"]
    flow: Float[Tensor, "h w 2"]
    visible: Bool[Tensor, "h w"]


@dataclass(frozen=True)
class PairFiles:
    """Files of a pair; without an occlusion file nothing is occluded."""

    flow: Path
    source: Path
    target: Path
    occlusion: Path | None

    def read(self) -> ImagePair:
        """Reads the pair; raises `DataError` for a missing or damaged file, or one of another size than the flow."""
        flow = torch.from_numpy(read_flow(self.flow))
        source, target = (self._image(path, flow) for path in (self.source, self.target))
        visible = _within(flow) & (flow.abs() < UNKNOWN).all(-1)
        if self.occlusion is not None:
            visible &= self._image(self.occlusion, flow)[..., 0] < 128
        return ImagePair(source, target, torch.where(visible[..., None], flow, 0.0), visible)

    def _image(self, path: Path, flow: Float[Tensor, "h w 2"]) -> UInt8[Tensor, "h w 3"]:
        pixels = image_files.read_rgb(path)
        if pixels.shape[:2] != flow.shape[:2]:
            height, width = flow.shape[:2]
            found, expected = f"{pixels.shape[1]}x{pixels.shape[0]}", f"{width}x{height}, the size of the flow"
            raise DataError(path, "size", found, expected, "restore the files of this pair")
        return torch.from_numpy(pixels)


def list_pairs(folder: Path) -> tuple[PairFiles, ...]:
    """Pairs of a folder sorted by name; raises `DataError` if there are none or a file is missing."""
    check_folder(folder)
    flow, others = TWO
    found = [
        PairFiles(path, *(path.with_name(path.name.removesuffix(flow) + suffix) for suffix in others))
        for path in sorted(folder.glob(f"*{flow}"))
    ]
    for flow, source, target in ONE:
        for path in sorted(folder.glob(f"*{flow}")):
            name = path.name.removesuffix(flow)
            found.append(PairFiles(path, path.with_name(name + source), path.with_name(name + target), None))
    if not found:
        expected = "NAME-flow_10.flo (FlyingChairs2), NAME-gt.flo or NAME_flow.flo (FlyingChairs)"
        raise DataError(folder, "pairs", "missing", expected, "give the folder that contains them")
    for pair in found:
        for path in (pair.source, pair.target, pair.occlusion):
            if path is not None and not path.is_file():
                raise DataError(path, "file", "missing", f"that of {pair.flow.name}", "restore it or remove the flow")
    return tuple(found)


def _within(flow: Float[Tensor, "h w 2"]) -> Bool[Tensor, "h w"]:
    """Mask of the pixels whose flow stays in the image."""
    height, width, _ = flow.shape
    x = torch.arange(width) + flow[..., 0]
    y = torch.arange(height)[:, None] + flow[..., 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
