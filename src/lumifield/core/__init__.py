"""Cameras, rays, scenes, sampling and compositing: the stages that methods are composed of."""
