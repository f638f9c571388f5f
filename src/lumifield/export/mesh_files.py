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
class ColoredMesh:
    """Triangles with normals, and sRGB vertex colors or a texture."""

    vertices: Float[np.ndarray, "v 3"]
    faces: Int[np.ndarray, "f 3"]
    normals: Float[np.ndarray, "v 3"]
    colors: UInt8[np.ndarray, "v 3"] | Texture


def write_mesh(mesh: ColoredMesh, out: Path) -> None:
    """Writes a mesh in the format of the extension of `out`; the texture of an OBJ file is written next to it."""
    match out.suffix:
        case ".obj":
            write_obj(mesh, out)
        case ".glb":
            linear_mesh = to_trimesh(mesh, linear=True)
            _write_bytes(out, gltf.export_glb(linear_mesh, include_normals=True, tree_postprocessor=mark_unlit))
        case ".ply":
            _write_bytes(out, ply.export_ply(to_trimesh(mesh), vertex_normal=True))
        case ".dae":
            _write_bytes(out, dae.export_collada(to_trimesh(mesh)))
        case ".stl":
            _write_bytes(out, stl.export_stl(to_trimesh(mesh)))


def write_obj(mesh: ColoredMesh, out: Path) -> None:
    """Writes an OBJ file; its material and texture have the same name."""
    converted = to_trimesh(mesh)
    material, image = out.with_suffix(".mtl"), out.with_suffix(".png")
    if isinstance(mesh.colors, Texture):
        with replacing(image) as temporary:
            Image.fromarray(mesh.colors.pixels).save(temporary, format="png")
        _write_bytes(material, f"newmtl surface\nKd 1 1 1\nillum 0\nmap_Kd {image.name}\n".encode())
        converted.visual = TextureVisuals(uv=mesh.colors.uv, material=SimpleMaterial(name="surface"))
    text = obj.export_obj(converted, include_normals=True, write_texture=False, mtl_name=material.name)
    _write_bytes(out, text.encode())


def to_trimesh(mesh: ColoredMesh, *, linear: bool = False) -> trimesh.Trimesh:
    """Converts a mesh to trimesh; `linear` converts vertex colors to linear RGB, as glTF requires."""
    if isinstance(mesh.colors, Texture):
        image = Image.fromarray(mesh.colors.pixels)
        material = PBRMaterial(baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0)
        visual = TextureVisuals(uv=mesh.colors.uv, material=material)
    else:
        visual = ColorVisuals(vertex_colors=srgb_to_linear(mesh.colors) if linear else mesh.colors)
    return trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=mesh.normals, visual=visual, process=False)


def srgb_to_linear(colors: UInt8[np.ndarray, "v 3"]) -> UInt8[np.ndarray, "v 3"]:
    """Linear RGB of sRGB colors (IEC 61966-2-1)."""
    srgb = colors / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.round(255 * linear).astype(np.uint8)


def mark_unlit(tree: dict[str, Any]) -> None:
    """Marks the materials of a glTF tree as unlit, because colors already contain the lighting."""
    materials = tree.setdefault("materials", [])
    if not materials:
        materials.append({"pbrMetallicRoughness": {"metallicFactor": 0.0}})
    for material in materials:
        material["extensions"] = {UNLIT: {}}
    for mesh in tree["meshes"]:
        for primitive in mesh["primitives"]:
            primitive.setdefault("material", 0)
    tree["extensionsUsed"] = sorted({*tree.get("extensionsUsed", []), UNLIT})


def _write_bytes(out: Path, content: bytes) -> None:
    """Writes a file atomically."""
    with replacing(out) as temporary:
        temporary.write_bytes(content)
