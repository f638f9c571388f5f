"""Fields: functions of a point in space, or of a pixel, that have parameters; here words for them, without torch."""

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
