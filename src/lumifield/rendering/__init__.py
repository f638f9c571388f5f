"""Trained methods to images: single views, camera paths, appearance, videos."""
