"""The machine and the commit that a measurement holds for."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import torch


def describe_machine(device: torch.device) -> str:
    """Name of the processor or the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = next(
        (line.split(":")[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.machine()
    )
    return f"{model}, {os.cpu_count()} cores, torch {torch.__version__}"


def _cpuinfo() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.is_file() else []


def current_commit() -> str:
    """Git commit that was measured, with a plus if files differ from it."""
    try:
        command, folder = ["git", "describe", "--always", "--dirty=+"], Path(__file__).parent
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found.stdout.strip()
