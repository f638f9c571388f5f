"""Lumifield learns a scene from images and shows it from anywhere else."""

__version__ = "0.1.0"
