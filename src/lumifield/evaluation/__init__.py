"""Scores of rendered views and surfaces against ground truth, and the report."""
