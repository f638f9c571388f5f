"""Readers of capture formats, one module per format."""
