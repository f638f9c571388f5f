"""Chairs: a seat on legs of some kind, a back, and sometimes arms and a cushion. They face along x."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lumifield.synthetic.materials import STEEL, cloth, paint, wood
from lumifield.synthetic.shapes import Box, Cylinder
from lumifield.synthetic.stage import Item, Material

EDGE = 0.01


@dataclass(frozen=True)
class Frame:
    """The dimensions of a chair: half width and depth of the seat, its height, how far the back rises above it."""

    width: float
    depth: float
    seat: float
    back: float
    bar: float
    material: Material

    def beam(self, name: str, half: tuple[float, float, float], center: tuple[float, float, float]) -> Item:
        """A piece of the frame."""
        return Item(name, Box(half, EDGE), self.material, center)


def chair(rng: np.random.Generator) -> tuple[Item, ...]:
    """A chair that stands on the plane z = 0."""
    frame = Frame(
        width=rng.uniform(0.28, 0.40),
        depth=rng.uniform(0.28, 0.38),
        seat=rng.uniform(0.45, 0.65),
        back=rng.uniform(0.40, 0.75),
        bar=rng.uniform(0.025, 0.045),
        material=(wood, paint, wood)[rng.integers(3)](rng),
    )
    seat = frame.beam("seat", (frame.depth, frame.width, 0.04), (0, 0, frame.seat))
    return (seat, *_legs(frame, rng), *_back(frame, rng), *_arms(frame, rng), *_cushion(frame, rng))


def _legs(frame: Frame, rng: np.random.Generator) -> list[Item]:
    x, y, half = frame.depth - frame.bar, frame.width - frame.bar, frame.seat / 2
    match rng.integers(4):
        case 0:
            foot = Item("foot", Cylinder(0.9 * min(x, y), 0.025, EDGE), STEEL, (0, 0, 0.025))
            return [foot, Item("column", Cylinder(1.3 * frame.bar, half), STEEL, (0, 0, half))]
        case 1:
            sides = [frame.beam("runner", (x, frame.bar, frame.bar), (0, side * y, frame.bar)) for side in (-1, 1)]
            posts = [frame.beam("post", (frame.bar, frame.bar, half), (0, side * y, half)) for side in (-1, 1)]
            return [*sides, *posts]
        case 2:
            round_leg = Cylinder(frame.bar, half)
            return [Item("leg", round_leg, frame.material, (i * x, j * y, half)) for i in (-1, 1) for j in (-1, 1)]
        case _:
            square = (frame.bar, frame.bar, half)
            return [frame.beam("leg", square, (i * x, j * y, half)) for i in (-1, 1) for j in (-1, 1)]


def _back(frame: Frame, rng: np.random.Generator) -> list[Item]:
    x, y, half = frame.bar - frame.depth, frame.width - frame.bar, frame.back / 2
    middle = frame.seat + half
    posts = [frame.beam("post", (frame.bar, frame.bar, half), (x, side * y, middle)) for side in (-1, 1)]
    rail = frame.beam("rail", (frame.bar, frame.width, 1.6 * frame.bar), (x, 0, frame.seat + frame.back))
    match rng.integers(3):
        case 0:
            panel = Box((frame.bar, frame.width, half), EDGE)
            return [Item("panel", panel, cloth(rng) if rng.uniform() < 0.5 else frame.material, (x, 0, middle))]
        case 1:
            places = np.linspace(-y, y, rng.integers(5, 8))[1:-1].tolist()
            return [*posts, rail, *(frame.beam("slat", (0.012, 0.03, half), (x, at, middle)) for at in places)]
        case _:
            heights = np.linspace(0, frame.back, rng.integers(4, 6))[1:-1].tolist()
            rungs = [frame.beam("rung", (0.015, y, 0.05), (x, 0, frame.seat + height)) for height in heights]
            return [*posts, rail, *rungs]


def _arms(frame: Frame, rng: np.random.Generator) -> list[Item]:
    if rng.uniform() > 0.35:
        return []
    height, y = rng.uniform(0.18, 0.26), frame.width - frame.bar
    front = frame.depth - 3 * frame.bar
    found = []
    for side in (-1, 1):
        top = (0, side * y, frame.seat + height)
        found.append(frame.beam("arm", (frame.depth, 1.3 * frame.bar, 0.6 * frame.bar), top))
        support = (front, side * y, frame.seat + height / 2)
        found.append(frame.beam("support", (frame.bar, frame.bar, height / 2), support))
    return found


def _cushion(frame: Frame, rng: np.random.Generator) -> list[Item]:
    if rng.uniform() > 0.4:
        return []
    half = (frame.depth - 2 * frame.bar, frame.width - 2 * frame.bar, 0.045)
    return [Item("cushion", Box(half, 0.04), cloth(rng), (frame.bar, 0, frame.seat + 0.07))]
