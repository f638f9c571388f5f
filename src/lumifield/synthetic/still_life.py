"""The still life: fruit, a vase, a bowl, boxes and rings on a round table, or on a long table before a wall."""

from __future__ import annotations

from lumifield.synthetic.scene_description import (
    Checker,
    Clouds,
    Item,
    Lighting,
    Material,
    SolidColor,
    Stripes,
    SyntheticScene,
    Wood,
)
from lumifield.synthetic.shapes import Bowl, Box, Cylinder, RoundCone, Sphere, Torus, Vase

# Height of the table top [world units]: everything on it lies in the cube [-1.2, 1.2]^3.
TABLE_HEIGHT = -0.42

OAK = Material(Wood((0.62, 0.40, 0.20), (0.36, 0.19, 0.08), 8.0))
PINE = Material(Wood((0.70, 0.50, 0.27), (0.47, 0.28, 0.12), 13.0))
WALNUT = Material(Wood((0.30, 0.16, 0.08), (0.14, 0.07, 0.035), 11.0))
CLOTH = Material(Checker((0.76, 0.73, 0.64), (0.09, 0.26, 0.32), 6.0))
GLAZE = Material(Stripes((0.76, 0.74, 0.68), (0.05, 0.14, 0.38), 6.0, 1.0), coat_reflectance=0.05)
CELADON = Material(SolidColor((0.27, 0.48, 0.40)), coat_reflectance=0.05)
GOLD = Material(SolidColor((0.95, 0.68, 0.28)), is_metal=True)
ORANGE = Material(Clouds((0.80, 0.28, 0.02), (0.88, 0.40, 0.05), 20.0), coat_reflectance=0.03)
APPLE = Material(Clouds((0.50, 0.015, 0.02), (0.62, 0.16, 0.04), 7.0), coat_reflectance=0.04)
PEAR = Material(Clouds((0.58, 0.58, 0.10), (0.40, 0.46, 0.07), 8.0), coat_reflectance=0.03)
LEMON = Material(SolidColor((0.82, 0.64, 0.05)), coat_reflectance=0.03)
PLUM = Material(SolidColor((0.12, 0.05, 0.20)), coat_reflectance=0.06)
COBALT = Material(SolidColor((0.04, 0.12, 0.42)), coat_reflectance=0.06)
STEM = Material(SolidColor((0.16, 0.09, 0.04)))
WALLPAPER = Material(Stripes((0.62, 0.55, 0.43), (0.40, 0.47, 0.42), 1.6))
PAINTING = Material(Clouds((0.06, 0.18, 0.34), (0.78, 0.42, 0.16), 5.0))


def make_tabletop_items() -> tuple[Item, ...]:
    """The items on the table."""
    return (
        Item("cloth", Cylinder(0.82, 0.012, 0.012), CLOTH, (-0.14, -0.13, TABLE_HEIGHT + 0.012), (0, 0, 20)),
        Item("vase", Vase(0.21, 0.095, 0.48, 0.028), GLAZE, (-0.48, 0.38, TABLE_HEIGHT + 0.505)),
        Item("large box", Box((0.27, 0.27, 0.17), 0.016), PINE, (0.58, 0.46, TABLE_HEIGHT + 0.17), (0, 0, 24)),
        Item("middle box", Box((0.19, 0.19, 0.12), 0.016), WALNUT, (0.56, 0.48, TABLE_HEIGHT + 0.46), (0, 0, 52)),
        Item("small box", Box((0.115, 0.115, 0.115), 0.014), OAK, (0.58, 0.46, TABLE_HEIGHT + 0.695), (0, 0, 10)),
        Item("bowl", Bowl(0.34, -0.04, 0.02), CELADON, (-0.12, -0.34, TABLE_HEIGHT + 0.384)),
        Item("orange", Sphere(0.155), ORANGE, (-0.22, -0.25, TABLE_HEIGHT + 0.335)),
        Item("lemon", RoundCone(0.108, 0.068, 0.115), LEMON, (0.00, -0.28, TABLE_HEIGHT + 0.365), (70, 0, 60)),
        Item("plum", Sphere(0.115), PLUM, (-0.12, -0.455, TABLE_HEIGHT + 0.30)),
        Item("apple", Torus(0.098, 0.132), APPLE, (0.60, -0.32, TABLE_HEIGHT + 0.132)),
        Item("apple stem", RoundCone(0.014, 0.010, 0.105), STEM, (0.60, -0.32, TABLE_HEIGHT + 0.21), (12, 8, 0)),
        Item("pear", RoundCone(0.16, 0.075, 0.25), PEAR, (0.14, 0.32, TABLE_HEIGHT + 0.182)),
        Item("pear stem", RoundCone(0.014, 0.010, 0.09), STEM, (0.14, 0.32, TABLE_HEIGHT + 0.485), (-15, 10, 0)),
        Item("lying ring", Torus(0.15, 0.032), GOLD, (0.44, -0.78, TABLE_HEIGHT + 0.032)),
        Item("standing ring", Torus(0.17, 0.036), GOLD, (0.72, 0.10, TABLE_HEIGHT + 0.197), (75, 0, 24)),
        Item("marble", Sphere(0.08), COBALT, (-0.72, -0.50, TABLE_HEIGHT + 0.08)),
    )


def make_table_scene() -> SyntheticScene:
    """The items on a round wooden table, surrounded by empty space."""
    top = Item("table", Cylinder(1.16, 0.055, 0.025), OAK, (0, 0, TABLE_HEIGHT - 0.055))
    return SyntheticScene((top, *make_tabletop_items()))


def make_room_scene() -> SyntheticScene:
    """The items on a long table before a papered wall with a painting, for cameras that look along y."""
    return SyntheticScene(
        (
            Item("table", Box((5.0, 2.6, 0.1), 0.02), OAK, (0, -0.6, TABLE_HEIGHT - 0.1)),
            Item("wall", Box((4.0, 0.1, 6.0)), WALLPAPER, (0, 2.1, 0), (0, 90, 0)),
            Item("frame", Box((0.62, 0.05, 0.46), 0.02), WALNUT, (0.12, 1.98, 0.86)),
            Item("painting", Box((0.54, 0.04, 0.38)), PAINTING, (0.12, 1.96, 0.86)),
            *make_tabletop_items(),
        ),
        Lighting(sun_direction=(-0.6, -0.75, 0.85)),
    )
