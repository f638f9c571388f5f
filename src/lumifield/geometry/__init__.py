"""Cameras, poses, rays, scene contraction, normals, rasterization and image sampling."""
