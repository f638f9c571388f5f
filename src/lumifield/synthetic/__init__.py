"""Procedural scenes with exact truth, their ray tracer, and writers for each on-disk format."""
