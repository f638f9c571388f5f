"""Interactive viewer in the browser."""
