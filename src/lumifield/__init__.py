"""Radiance fields from posed images: train, render novel views, evaluate and export.

```python
import lumifield as lf

run = lf.train("lego", lf.Instant(), minutes=5, out="runs/lego")
view = run.render(run.cameras("test")[0])
print(run.evaluate("test").psnr)
```

Names are imported when first used, so that `import lumifield` is instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lumifield.version import VERSION as __version__

if TYPE_CHECKING:
    from lumifield.api.capture import Camera, LoadedScene, load_scene
    from lumifield.api.run import RenderedImage, Run, load_run
    from lumifield.api.training import meta_train, train
    from lumifield.data import Source
    from lumifield.errors import DataError
    from lumifield.evaluation.metrics import Metrics
    from lumifield.meta import MetaTrain
    from lumifield.meta.outer_loop import gradient_descent, maml, reptile
    from lumifield.methods import Instant, MipNerf, Nerf, NerfW, Nlr, SimpleNerf
    from lumifield.optim import Optimizer, Schedule
    from lumifield.optim.optimizers import build_optimizer
    from lumifield.synthetic import StillLife, Tourists, synthesize_data
    from lumifield.training import Train, TrainingError

_MODULES = {
    "lumifield.api.capture": ("Camera", "LoadedScene", "load_scene"),
    "lumifield.api.run": ("RenderedImage", "Run", "load_run"),
    "lumifield.api.training": ("meta_train", "train"),
    "lumifield.data": ("Source",),
    "lumifield.errors": ("DataError",),
    "lumifield.evaluation.metrics": ("Metrics",),
    "lumifield.meta": ("MetaTrain",),
    "lumifield.meta.outer_loop": ("gradient_descent", "maml", "reptile"),
    "lumifield.methods": ("Instant", "MipNerf", "Nerf", "NerfW", "Nlr", "SimpleNerf"),
    "lumifield.optim": ("Optimizer", "Schedule"),
    "lumifield.optim.optimizers": ("build_optimizer",),
    "lumifield.synthetic": ("StillLife", "Tourists", "synthesize_data"),
    "lumifield.training": ("Train", "TrainingError"),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Camera",
    "DataError",
    "Instant",
    "LoadedScene",
    "MetaTrain",
    "Metrics",
    "MipNerf",
    "Nerf",
    "NerfW",
    "Nlr",
    "Optimizer",
    "RenderedImage",
    "Run",
    "Schedule",
    "SimpleNerf",
    "Source",
    "StillLife",
    "Tourists",
    "Train",
    "TrainingError",
    "__version__",
    "build_optimizer",
    "gradient_descent",
    "load_run",
    "load_scene",
    "maml",
    "meta_train",
    "reptile",
    "synthesize_data",
    "train",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'lumifield' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
