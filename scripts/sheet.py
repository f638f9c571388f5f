"""Puts pictures of one size side by side, four in a row.

Run `python scripts/sheet.py docs/pictures/localization.jpg RUN/localize/sequence/seq-99/*.color.png`.
"""

from __future__ import annotations

from pathlib import Path

import tyro
from PIL import Image
from tyro.conf import Positional

from lumifield.core.files import replacing

COLUMNS = 4


def main(out: Positional[Path], pictures: Positional[tuple[Path, ...]]) -> None:
    """Makes the sheet OUT of PICTURES."""
    opened = [Image.open(path) for path in pictures]
    width, height = opened[0].size
    sheet = Image.new("RGB", (width * min(COLUMNS, len(opened)), height * -(-len(opened) // COLUMNS)))
    for index, picture in enumerate(opened):
        sheet.paste(picture, (width * (index % COLUMNS), height * (index // COLUMNS)))
    with replacing(out) as temporary:
        sheet.save(temporary, format="jpeg", quality=88)


if __name__ == "__main__":
    tyro.cli(main)
