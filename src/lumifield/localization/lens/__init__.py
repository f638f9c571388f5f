"""LENS: volumetric density, selection of novel poses, synthesis of novel views."""
