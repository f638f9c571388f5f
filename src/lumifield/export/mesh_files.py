"""Mesh files: PLY, OBJ, GLB, DAE, STL."""

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

TEXTURED_EXTENSIONS = (".obj", ".glb")
EXTENSIONS = (".ply", *TEXTURED_EXTENSIONS, ".dae", ".stl")
UNLIT = "KHR_materials_unlit"


@dataclass(frozen=True)
class Texture:
    """Texture image (top row first) and vertex coordinates from (0, 0) at the lower left to (1, 1)."""

    pixels: UInt8[np.ndarray, "h w 3"]
    uv: Float[np.ndarray, "v 2"]


@dataclass(frozen=True)
class TexturedMesh:
    """Triangles with normals, and sRGB vertex colors or a texture."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    normals: Float[np.ndarray, "v 3"]
    colors: UInt8[np.ndarray, "v 3"] | Texture


def save_mesh(model: TexturedMesh, out: Path) -> None:
    """Writes a mesh in the format of the extension of `out`; the texture of an OBJ file is written next to it."""
    match out.suffix:
        case ".obj":
            save_obj(model, out)
        case ".glb":
            save_content(
                out,
                gltf.export_glb(to_trimesh(model, linear=True), include_normals=True, tree_postprocessor=mark_unlit),
            )
        case ".ply":
            save_content(out, ply.export_ply(to_trimesh(model), vertex_normal=True))
        case ".dae":
            save_content(out, dae.export_collada(to_trimesh(model)))
        case ".stl":
            save_content(out, stl.export_stl(to_trimesh(model)))


def save_content(out: Path, content: bytes) -> None:
    """Writes a file atomically."""
    with replacing(out) as temporary:
        temporary.write_bytes(content)


def to_trimesh(model: TexturedMesh, *, linear: bool = False) -> trimesh.Trimesh:
    """The mesh as trimesh object; `linear`: vertex colors in linear light, as glTF requires."""
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


def mark_unlit(tree: dict[str, Any]) -> None:
    """Marks a glTF material as unlit, because colors already contain the lighting."""
    materials = tree.setdefault("materials", [])
    if not materials:
        materials.append({"pbrMetallicRoughness": {"metallicFactor": 0.0}})
    for material in materials:
        material["extensions"] = {UNLIT: {}}
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive.setdefault("material", 0)
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", []), UNLIT})


def save_obj(model: TexturedMesh, out: Path) -> None:
    """Writes an OBJ file; its material and texture have the same name."""
    made = to_trimesh(model)
    material, image = out.with_suffix(".mtl"), out.with_suffix(".png")
    if isinstance(model.colors, Texture):
        with replacing(image) as temporary:
            Image.fromarray(model.colors.pixels).save(temporary, format="png")
        save_content(material, f"newmtl surface\nKd 1 1 1\nillum 0\nmap_Kd {image.name}\n".encode())
        made.visual = TextureVisuals(uv=model.colors.uv, material=SimpleMaterial(name="surface"))
    text = obj.export_obj(made, include_normals=True, write_texture=False, mtl_name=material.name)
    save_content(out, text.encode())
