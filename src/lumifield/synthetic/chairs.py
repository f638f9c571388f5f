"""Random chairs: a seat on legs, a back, and sometimes arms and a cushion. They face along x."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lumifield.synthetic.materials import STEEL, random_cloth, random_paint, random_wood
from lumifield.synthetic.scene_description import Item, Material
from lumifield.synthetic.shapes import Box, Cylinder

EDGE_RADIUS = 0.01


@dataclass(frozen=True)
class ChairFrame:
    """The dimensions of a chair: half extents of the seat, its height, the height of the back above it, and the half
    width of the bars."""

    half_width: float
    half_depth: float
    seat_height: float
    back_height: float
    bar: float
    material: Material

    def make_beam(
        self, name: str, half_extents: tuple[float, float, float], center: tuple[float, float, float]
    ) -> Item:
        """A box-shaped part of the frame."""
        return Item(name, Box(half_extents, EDGE_RADIUS), self.material, center)


def make_chair(rng: np.random.Generator) -> tuple[Item, ...]:
    """A chair that stands on the plane z = 0."""
    frame = ChairFrame(
        half_width=rng.uniform(0.28, 0.40),
        half_depth=rng.uniform(0.28, 0.38),
        seat_height=rng.uniform(0.45, 0.65),
        back_height=rng.uniform(0.40, 0.75),
        bar=rng.uniform(0.025, 0.045),
        material=(random_wood, random_paint, random_wood)[rng.integers(3)](rng),
    )
    seat = frame.make_beam("seat", (frame.half_depth, frame.half_width, 0.04), (0, 0, frame.seat_height))
    return (seat, *_make_legs(frame, rng), *_make_back(frame, rng), *_make_arms(frame, rng), *_make_cushion(frame, rng))


def _make_legs(frame: ChairFrame, rng: np.random.Generator) -> list[Item]:
    x, y = frame.half_depth - frame.bar, frame.half_width - frame.bar
    half_height = frame.seat_height / 2
    match rng.integers(4):
        case 0:
            foot = Item("foot", Cylinder(0.9 * min(x, y), 0.025, EDGE_RADIUS), STEEL, (0, 0, 0.025))
            return [foot, Item("column", Cylinder(1.3 * frame.bar, half_height), STEEL, (0, 0, half_height))]
        case 1:
            runners = [
                frame.make_beam("runner", (x, frame.bar, frame.bar), (0, side * y, frame.bar)) for side in (-1, 1)
            ]
            posts = [
                frame.make_beam("post", (frame.bar, frame.bar, half_height), (0, side * y, half_height))
                for side in (-1, 1)
            ]
            return [*runners, *posts]
        case 2:
            round_leg = Cylinder(frame.bar, half_height)
            return [
                Item("leg", round_leg, frame.material, (i * x, j * y, half_height)) for i in (-1, 1) for j in (-1, 1)
            ]
        case _:
            square = (frame.bar, frame.bar, half_height)
            return [frame.make_beam("leg", square, (i * x, j * y, half_height)) for i in (-1, 1) for j in (-1, 1)]


def _make_back(frame: ChairFrame, rng: np.random.Generator) -> list[Item]:
    x, y = frame.bar - frame.half_depth, frame.half_width - frame.bar
    half_height = frame.back_height / 2
    center_height = frame.seat_height + half_height
    posts = [
        frame.make_beam("post", (frame.bar, frame.bar, half_height), (x, side * y, center_height)) for side in (-1, 1)
    ]
    rail = frame.make_beam(
        "rail", (frame.bar, frame.half_width, 1.6 * frame.bar), (x, 0, frame.seat_height + frame.back_height)
    )
    match rng.integers(3):
        case 0:
            panel = Box((frame.bar, frame.half_width, half_height), EDGE_RADIUS)
            material = random_cloth(rng) if rng.uniform() < 0.5 else frame.material
            return [Item("panel", panel, material, (x, 0, center_height))]
        case 1:
            positions = np.linspace(-y, y, rng.integers(5, 8))[1:-1].tolist()
            slat = (0.012, 0.03, half_height)
            slats = [frame.make_beam("slat", slat, (x, position, center_height)) for position in positions]
            return [*posts, rail, *slats]
        case _:
            heights = np.linspace(0, frame.back_height, rng.integers(4, 6))[1:-1].tolist()
            rungs = [
                frame.make_beam("rung", (0.015, y, 0.05), (x, 0, frame.seat_height + height)) for height in heights
            ]
            return [*posts, rail, *rungs]


def _make_arms(frame: ChairFrame, rng: np.random.Generator) -> list[Item]:
    if rng.uniform() > 0.35:
        return []
    height, y = rng.uniform(0.18, 0.26), frame.half_width - frame.bar
    front = frame.half_depth - 3 * frame.bar
    items = []
    for side in (-1, 1):
        top = (0, side * y, frame.seat_height + height)
        items.append(frame.make_beam("arm", (frame.half_depth, 1.3 * frame.bar, 0.6 * frame.bar), top))
        support = (front, side * y, frame.seat_height + height / 2)
        items.append(frame.make_beam("support", (frame.bar, frame.bar, height / 2), support))
    return items


def _make_cushion(frame: ChairFrame, rng: np.random.Generator) -> list[Item]:
    if rng.uniform() > 0.4:
        return []
    half_extents = (frame.half_depth - 2 * frame.bar, frame.half_width - 2 * frame.bar, 0.045)
    return [Item("cushion", Box(half_extents, 0.04), random_cloth(rng), (frame.bar, 0, frame.seat_height + 0.07))]
