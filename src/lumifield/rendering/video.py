"""Encoding of frames to MP4, GIF, or folders of PNG files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from lumifield.runtime import image_io
from lumifield.runtime.files import replacing

BT709 = (
    "scale=out_color_matrix=bt709:out_range=tv,"
    "setparams=colorspace=bt709:color_primaries=bt709:color_trc=bt709:range=tv"
)
OWN_PALETTES = "split[a][b];[a]palettegen=stats_mode=single[p];[b][p]paletteuse=new=1:dither=sierra2_4a"
CODECS = {
    ".mp4": {"codec": "libx264", "quality": 8, "output_params": ["-vf", BT709, "-movflags", "+faststart"]},
    ".gif": {"codec": "gif", "quality": None, "pix_fmt_out": "pal8", "output_params": ["-vf", OWN_PALETTES]},
}


def write_frames(out: Path, frames: Iterable[UInt8[Tensor, "h w 3"]], fps: int) -> None:
    """Frames of one size to a video, or to a folder of PNG files if `out` has no extension."""
    if out.suffix:
        encode_video(out, iter(frames), fps)
        return
    count = 0
    for count, frame in enumerate(frames, 1):
        image_io.write_png(out / f"{count - 1:04d}.png", frame)
    remove_frames_beyond(out, count, ".png")


def encode_video(out: Path, frames: Iterator[UInt8[Tensor, "h w 3"]], fps: int) -> None:
    """Encodes frames to H.264 in MP4 (BT.709, odd sides padded by repetition) or to GIF."""
    with replacing(out) as temporary:
        frames = map(pad_to_even, frames) if out.suffix == ".mp4" else frames
        first = next(frames)
        size = first.shape[1], first.shape[0]
        video = imageio_ffmpeg.write_frames(
            temporary, size, fps=fps, macro_block_size=1, ffmpeg_log_level="quiet", **CODECS[out.suffix]
        )
        sent = 0
        with closing(video):
            video.send(None)
            for frame in chain([first], frames):
                video.send(np.ascontiguousarray(frame.numpy()))
                sent += 1
        # The encoder exits without an error if the disk fills up during its last frames.
        if count_video_frames(temporary) != sent:
            raise OSError("the encoder could not finish")


def count_video_frames(video: Path) -> int:
    """Number of frames in a video file; 0 if it is missing or damaged."""
    try:
        return (imageio_ffmpeg.count_frames_and_secs(video)[0] if video.exists() else None) or 0
    except RuntimeError:
        return 0


def pad_to_even(frame: UInt8[Tensor, "h w 3"]) -> UInt8[Tensor, "h2 w2 3"]:
    """The frame with last row and column repeated if its sides are odd, as H.264 requires."""
    if frame.shape[0] % 2:
        frame = torch.cat([frame, frame[-1:]])
    return torch.cat([frame, frame[:, -1:]], 1) if frame.shape[1] % 2 else frame


def remove_frames_beyond(folder: Path, count: int, extension: str) -> None:
    """Removes numbered files left in the folder by an earlier, longer video."""
    for file in folder.glob(f"[0-9][0-9][0-9][0-9]{extension}"):
        if int(file.stem) >= count:
            file.unlink()
