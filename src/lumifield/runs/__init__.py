"""The run folder on disk and the weights that ship with the package."""
