"""Lumifield learns a scene from photographs and shows it from anywhere else."""

__version__ = "0.1.0"
