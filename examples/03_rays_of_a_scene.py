"""Draw rays of a scene on a map seen from above, in the colors of their pixels."""

from pathlib import Path

import numpy as np
import tyro
from PIL import Image, ImageDraw

import lumifield as lf

MAP_SIZE, EXTENT = 640, 5.0


def main(
    data: Path = Path("runs/example/still-life"), rays: int = 200, out: Path = Path("runs/example/rays.png")
) -> None:
    """Writes the map to OUT; it spans 10 world units."""
    scene, rng = lf.load_scene(data, "train"), np.random.default_rng(0)
    image = Image.new("RGB", (MAP_SIZE, MAP_SIZE), "white")
    draw = ImageDraw.Draw(image)
    for index in rng.integers(len(scene), size=rays).tolist():
        camera = scene.cameras[index]
        origins, directions = camera.rays()
        row, column = rng.integers(camera.size[1]), rng.integers(camera.size[0])
        near, far = camera.bounds
        ends = [origins[row, column] + t * directions[row, column] for t in (near, far)]
        color = tuple(int(255 * value) for value in scene.ground_truth(index)[row, column])
        draw.line([to_map(point) for point in ends], fill=color)
    for camera in scene.cameras:
        x, y = to_map(camera.position)
        draw.ellipse([x - 3, y - 3, x + 3, y + 3], fill="black")
    out.parent.mkdir(parents=True, exist_ok=True)
    image.save(out)
    print(out)


def to_map(point: np.ndarray) -> tuple[float, float]:
    """Pixel of a world point: x to the right, y upward, z dropped."""
    return MAP_SIZE / 2 * (1 + point[0] / EXTENT), MAP_SIZE / 2 * (1 - point[1] / EXTENT)


if __name__ == "__main__":
    tyro.cli(main)
