"""`lumifield info`."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class InfoCommand:
    """Print versions, devices, and the compute kernels in use."""

    def run(self) -> None:
        """Prints."""
        print("\n".join(describe_installation()))


def describe_installation() -> list[str]:
    """Versions, devices, precision, cache and kernels of this installation, one line each."""
    import torch

    import lumifield
    from lumifield import kernels
    from lumifield.data import image_cache
    from lumifield.runtime.precision import bf16_is_faster

    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lines = [
        f"lumifield {lumifield.__version__}, Python {platform.python_version()}, torch {torch.__version__}",
        f"platform  {platform.platform()}",
        f"processor {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads",
        f"cuda      {cuda}",
        f"bfloat16  {'used' if bf16_is_faster(device) else 'not used'} for networks on {device.type} (by a speed test)",
        f"cache     {image_cache.folder()}",
        f"kernels   {kernels.live(device)} on {device.type} ({explain_kernels(device)})",
    ]
    lines += [f"  {name:9s} {state}" for name, state in kernels.available().items()]
    return [*lines, f"triton    {describe_package('triton')} (CUDA kernels)"]


def explain_kernels(device: object) -> str:
    """Why these kernels are in use on a torch device."""
    from lumifield import kernels

    if os.environ.get("LUMIFIELD_KERNELS"):
        return "forced by LUMIFIELD_KERNELS"
    if kernels.live(device) == "reference":  # type: ignore[arg-type]
        return "no faster kernels can run here"
    return "the fastest for this device"


def describe_package(name: str) -> str:
    """Whether an optional package is installed, or how to install it."""
    if importlib.util.find_spec(name):
        return "installed"
    return f"not installed: {os.path.basename(sys.executable)} -m pip install {name}"
