"""Readers: one a data format, each returns a `Scene`."""
