"""Arranges images of one size in a grid.

Run `python scripts/contact_sheet.py sheet.jpg RUN/localize/sequence/seq-99/*.color.png`.
"""

from __future__ import annotations

from pathlib import Path

import tyro
from PIL import Image
from tyro.conf import Positional

from lumifield.runtime.files import replacing


def main(out: Positional[Path], images: Positional[tuple[Path, ...]], *, columns: int = 4) -> None:
    """Writes IMAGES to the contact sheet OUT with this number of columns."""
    opened = [Image.open(path) for path in images]
    width, height = opened[0].size
    sheet = Image.new("RGB", (width * min(columns, len(opened)), height * -(-len(opened) // columns)))
    for index, image in enumerate(opened):
        sheet.paste(image, (width * (index % columns), height * (index // columns)))
    with replacing(out) as temporary:
        sheet.save(temporary, format="jpeg", quality=88)


if __name__ == "__main__":
    tyro.cli(main)
