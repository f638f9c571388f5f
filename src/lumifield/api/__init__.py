"""The public Python API: captures, training, trained runs. Coordinates are world coordinates, arrays are numpy."""

from lumifield.environment import configure_process

configure_process()
