"""The machine that a run is on: GPUs, cores, versions. Found out without importing torch."""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

import erulab
from erulab.errors import EnvironmentFault
from erulab.redaction import redacted_text

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "pyarrow",
    "hydra-core",
    "omegaconf",
    "deepspeed",
    "peft",
    "bitsandbytes",
    "wandb",
)
DRIVER_SECONDS = 20


@dataclass(frozen=True)
class GPU:
    name: str
    capability: float | None = None  # CUDA compute capability; None: the driver does not say
    device: str = ""  # as CUDA_VISIBLE_DEVICES names it


def gpus() -> list[GPU]:
    """Returns the NVIDIA GPUs that this process may use (CUDA_VISIBLE_DEVICES).

    Raises:
        EnvironmentFault: the driver does not answer.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and (not visible.strip() or visible.startswith("-1")):
        return []
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index,uuid,compute_cap,name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=DRIVER_SECONDS)
    except subprocess.TimeoutExpired:
        raise EnvironmentFault(
            f"nvidia-smi has not answered in {DRIVER_SECONDS} s: the GPU driver hangs; restart it, or type "
            "CUDA_VISIBLE_DEVICES= before the command to run on the CPU"
        ) from None
    if answer.returncode:
        return []
    rows = [line.split(",", 3) for line in answer.stdout.splitlines() if line.count(",") >= 3]
    found = [[part.strip() for part in row] for row in rows]
    if visible is not None:
        wanted = [part.strip() for part in visible.split(",")]
        if any(part.startswith("MIG-") for part in wanted):
            # MIG: a slice of a GPU. The driver lists only whole GPUs.
            return [GPU("MIG", _float_or_none(found[0][2]) if found else None, part) for part in wanted]
        found = [next((f for f in found if part in (f[0], f[1]) or f[1].startswith(part)), []) for part in wanted]
        return [GPU(f[3], _float_or_none(f[2]), part) for f, part in zip(found, wanted, strict=True) if f]
    # The driver and CUDA may number GPUs differently, so the unique identifier is used.
    return [GPU(f[3], _float_or_none(f[2]), f[1]) for f in found]


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe(found: list[GPU]) -> dict[str, Any]:
    """Returns what env.json holds: versions, hardware, the command and when it started."""
    return {
        "erulab": erulab.__version__,
        "python": platform.python_version(),
        **{package: _package_version(package) for package in PACKAGES},
        "git": _git(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": cores(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": [gpu.name for gpu in found],
        "command": redacted_text(typed_command()),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def typed_command() -> str:
    """Returns the command line as it was typed to start erulab."""
    return shlex.join(["python", "-m", "erulab.run", *sys.argv[1:]])


def _package_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> str | None:
    """Returns the checkout's commit, with `-dirty` where files differ from it; None where erulab is no checkout."""
    root = Path(erulab.__file__).resolve().parent.parent
    if not (root / "conf").is_dir():  # installed: a repository around it is not erulab's
        return None
    ask = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _cpu() -> str:
    try:
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        model = None
    return model[1] if model else platform.processor()


def _float_or_none(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
