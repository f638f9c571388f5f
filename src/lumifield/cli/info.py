"""`lumifield info`: versions, devices, and which kernels are live and why."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys

import torch

import lumifield
from lumifield import kernels
from lumifield.data import image_cache
from lumifield.runtime.precision import bf16_is_faster

OPTIONAL = {"triton": "the CUDA kernels", "trimesh": "reading meshes in the tests"}


def lines() -> list[str]:
    """What this installation is and can do, a line each."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    said = [
        f"lumifield {lumifield.__version__}, Python {platform.python_version()}, torch {torch.__version__}",
        f"platform  {platform.platform()}",
        f"processor {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads",
        f"cuda      {cuda}",
        f"bfloat16  {'used' if bf16_is_faster(device) else 'not used'} for networks on {device.type}: a trial decides",
        f"cache     {image_cache.folder()}",
        f"kernels   {kernels.live(device)} on {device.type} ({why(device)})",
    ]
    said += [f"  {name:9s} {state}" for name, state in kernels.available().items()]
    said += [f"{name:9s} {_found(name)} ({use})" for name, use in OPTIONAL.items()]
    return said


def why(device: torch.device) -> str:
    """Why the live kernels are the live ones."""
    if os.environ.get("LUMIFIELD_KERNELS"):
        return "forced by LUMIFIELD_KERNELS"
    if kernels.live(device) == "reference":
        return "nothing faster can be used here"
    return "the fastest for this device"


def _found(package: str) -> str:
    if importlib.util.find_spec(package):
        return "installed"
    return f"missing: {os.path.basename(sys.executable)} -m pip install {package}"
