"""The command line; nothing outside of this package imports tyro or rich."""
