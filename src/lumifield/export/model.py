"""Colored triangles as files of other programs: PLY, OBJ, GLB, DAE, STL."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float, Int, UInt8
from PIL import Image
from trimesh.exchange import dae, gltf, obj, ply, stl
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from lumifield.runtime.files import replacing

TEXTURED = (".obj", ".glb")
ENDINGS = (".ply", *TEXTURED, ".dae", ".stl")
UNLIT = "KHR_materials_unlit"


@dataclass(frozen=True)
class Texture:
    """An image (top row first) and the place of each vertex in it, from (0, 0) at the lower left to (1, 1)."""

    pixels: UInt8[np.ndarray, "h w 3"]
    uv: Float[np.ndarray, "v 2"]


@dataclass(frozen=True)
class Model:
    """Triangles with normals, and sRGB colors at the vertices or in a texture."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    normals: Float[np.ndarray, "v 3"]
    colors: UInt8[np.ndarray, "v 3"] | Texture


def save(model: Model, out: Path) -> None:
    """Writes a model in the format that the ending of `out` says; an OBJ file's texture lies beside it."""
    match out.suffix:
        case ".obj":
            save_obj(model, out)
        case ".glb":
            write(out, gltf.export_glb(shape(model, linear=True), include_normals=True, tree_postprocessor=unlit))
        case ".ply":
            write(out, ply.export_ply(shape(model), vertex_normal=True))
        case ".dae":
            write(out, dae.export_collada(shape(model)))
        case ".stl":
            write(out, stl.export_stl(shape(model)))


def write(out: Path, content: bytes) -> None:
    """Writes a whole file."""
    with replacing(out) as temporary:
        temporary.write_bytes(content)


def shape(model: Model, *, linear: bool = False) -> trimesh.Trimesh:
    """The model as trimesh has it; `linear`: with colors of the vertices as linear light, as glTF wants them."""
    if isinstance(model.colors, Texture):
        image = Image.fromarray(model.colors.pixels)
        material = PBRMaterial(baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0)
        visual = TextureVisuals(uv=model.colors.uv, material=material)
    else:
        visual = ColorVisuals(vertex_colors=to_linear(model.colors) if linear else model.colors)
    return trimesh.Trimesh(model.vertices, model.faces, vertex_normals=model.normals, visual=visual, process=False)


def to_linear(colors: UInt8[np.ndarray, "v 3"]) -> UInt8[np.ndarray, "v 3"]:
    """Linear light of sRGB colors (IEC 61966-2-1)."""
    srgb = colors / 255
    light = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.round(255 * light).astype(np.uint8)


def unlit(tree: dict[str, Any]) -> None:
    """Tells viewers of a glTF file to show its colors as they are: they hold the light of the images already."""
    materials = tree.setdefault("materials", [])
    if not materials:
        materials.append({"pbrMetallicRoughness": {"metallicFactor": 0.0}})
    for material in materials:
        material["extensions"] = {UNLIT: {}}
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive.setdefault("material", 0)
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", []), UNLIT})


def save_obj(model: Model, out: Path) -> None:
    """An OBJ file; with a texture, its material and image beside it have its name."""
    made = shape(model)
    material, image = out.with_suffix(".mtl"), out.with_suffix(".png")
    if isinstance(model.colors, Texture):
        with replacing(image) as temporary:
            Image.fromarray(model.colors.pixels).save(temporary, format="png")
        write(material, f"newmtl surface\nKd 1 1 1\nillum 0\nmap_Kd {image.name}\n".encode())
        made.visual = TextureVisuals(uv=model.colors.uv, material=SimpleMaterial(name="surface"))
    text = obj.export_obj(made, include_normals=True, write_texture=False, mtl_name=material.name)
    write(out, text.encode())
