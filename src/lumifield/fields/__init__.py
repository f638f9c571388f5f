"""Fields: parametric functions of a 3D point or a pixel. This module is free of torch."""

from typing import Literal

Activation = Literal[
    "sine",
    "sinesq",
    "mod",
    "triangle",
    "sineorrelu",
    "xsine",
    "xsinesq",
    "xsinesqrelu",
    "xrelusinesq",
    "swish",
    "relu",
    "softplus",
    "elu",
    "selu",
    "tanh",
    "sigmoid",
]

Blending = Literal["learned", "lumigraph", "epipolar", "mean"]
