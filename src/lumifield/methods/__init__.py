"""Methods: ways to learn a scene."""
