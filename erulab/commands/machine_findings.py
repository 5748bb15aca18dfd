"""What the doctor finds about this machine: versions, packages, devices, compiler, memory, disk, hub and wandb.

Loads neither torch nor any other large package, so that it answers at once and where they are broken.
"""

from __future__ import annotations

import http.client
import os
import platform
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlparse

import psutil
from packaging.requirements import InvalidRequirement, Requirement

import erulab
from erulab import registry
from erulab.commands.arguments import OUTPUTS
from erulab.commands.findings import Finding, missing, note, ok
from erulab.errors import EnvironmentFault
from erulab.faults import free_bytes
from erulab.launching import machine
from erulab.launching.engine_choice import find_compilers, lacking_to_compile
from erulab.reporting.numbers import size
from erulab.tracking.wandb_login import has_wandb_key, wandb_host

LEAST_PYTHON = (3, 11)
LITTLE_DISK = 2e9  # bytes: a quickstart writes less, a model of a billion weights more
HUB_SECONDS = 3  # to wait for the hub's answer
INSTALL = "pip install -r requirements.txt"
ON = ("1", "ON", "YES", "TRUE")  # as huggingface_hub reads its variables
WANDB_OFF = ("disabled", "offline", "dryrun")


def machine_findings() -> list[Finding]:
    """Looks at this machine, in the order in which a newcomer meets what is missing; `find_hub` looks at the hub."""
    return [
        _python(),
        *_packages(),
        *_devices(),
        _compiler(),
        _memory(),
        folder_finding("disk for output", Path(OUTPUTS), "output"),
        folder_finding("disk for TMPDIR", Path(tempfile.gettempdir()), "TMPDIR"),
        _wandb(),
    ]


def folder_finding(what: str, folder: Path, key: str) -> Finding:
    """Looks whether files can be written where a folder is, or would be made.

    Args:
        key: the option or variable that names another one.
    """
    there = next((one for one in (folder.absolute(), *folder.absolute().parents) if one.exists()), Path("/"))
    if not there.is_dir():
        return missing(what, f"{there} is a file", f"name a folder with {key}=FOLDER")
    if not os.access(there, os.W_OK | os.X_OK):
        return missing(what, f"{there} cannot be written", f"name another folder with {key}=FOLDER")
    free = free_bytes(folder)
    said = f"{folder}: {size(free)} free"
    return (
        note(what, said, f"make room, or name another disk with {key}=FOLDER") if free < LITTLE_DISK else ok(what, said)
    )


def _python() -> Finding:
    found = f"{platform.python_version()}, erulab {erulab.__version__} in {Path(erulab.__file__).parent}"
    if sys.version_info[:2] < LEAST_PYTHON:
        return missing("python", found, f"install Python {'.'.join(map(str, LEAST_PYTHON))} or newer")
    return ok("python", found)


def _packages() -> Iterator[Finding]:
    """Compares the installed packages with what erulab requires: one line if all fit, otherwise one for each fault."""
    faults, fitting = [], 0
    for requirement in _requirements():
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            faults.append(missing(requirement.name, "not installed", f"pip install '{requirement}'"))
            continue
        if requirement.specifier.contains(version, prereleases=True):
            fitting += 1
        else:
            wanted = f"{version} is installed, and erulab requires {requirement.specifier}"
            faults.append(missing(requirement.name, wanted, f"pip install '{requirement}'"))
    versions = [f"{name} {found}" for name in machine.PACKAGES if (found := _version(name)) is not None]
    yield ok("packages", f"{fitting} of {fitting + len(faults)} required are there: {', '.join(versions)}")
    yield from faults


def _requirements() -> Iterator[Requirement]:
    """Yields what erulab requires on this platform: of requirements.txt in a checkout, otherwise of the wheel."""
    file = registry.CONF.parent / "requirements.txt"
    if file.is_file():
        lines = [line.split(" #")[0].strip() for line in file.read_text(encoding="utf-8").splitlines()]
    else:
        lines = metadata.requires("erulab") or []
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:  # a comment, or an option of pip
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _devices() -> Iterator[Finding]:
    try:
        gpus = machine.gpus()
    except EnvironmentFault as fault:
        yield missing("GPUs", str(fault))
        return
    cores = f"{machine.cores()} cores"
    hidden = "CUDA_VISIBLE_DEVICES" in os.environ and not gpus
    if not gpus:
        why = "CUDA_VISIBLE_DEVICES hides them" if hidden else "the CPU is used"
        yield ok("devices", f"{cores}, no GPU: {why}")
        return
    yield ok("devices", f"{cores}, {', '.join(gpu.name for gpu in gpus)}")
    torch = _version("torch") or ""
    if "+cpu" in torch:
        yield missing("torch for GPUs", f"torch {torch} cannot use them", "pip install --force-reinstall torch")
    old = [gpu.name for gpu in gpus if gpu.capability is not None and gpu.capability < 8]
    if old:
        yield note("bfloat16", f"{', '.join(old)} cannot compute in it: runs use float32 there")


def _compiler() -> Finding:
    """Looks for what DeepSpeed compiles with; only runs of several processes on CPUs need it."""
    compilers = find_compilers()
    lacking = lacking_to_compile(compilers)
    if lacking:
        return note("compiler", f"engine=zero1, zero2 and zero3 on CPUs need {lacking}; engine=local needs none")
    return ok("compiler", f"{compilers[0]} and ninja, which DeepSpeed needs on CPUs")


def _memory() -> Finding:
    memory = psutil.virtual_memory()
    return ok("memory", f"{size(memory.total)}, {size(memory.available)} of it free now")


def find_hub() -> Finding:
    """Says whether the hub is used and answers, and whether a token is set; never the token.

    Only a hub that answers is `ok`.
    """
    token = "a token is set" if _has_hub_token() else "no token is set (HF_TOKEN)"
    offline = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if os.environ.get(name, "").upper() in ON]
    if offline:
        return note("hub", f"offline by {offline[0]}: only what was fetched before is found; {token}")
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=HUB_SECONDS).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError, http.client.HTTPException) as error:
        why = getattr(error, "reason", error)
        return note(
            "hub",
            f"{urlparse(address).hostname} cannot be reached ({why}); {token}",
            "check the network or HF_ENDPOINT; local folders, and HF_HUB_OFFLINE=1 for what was fetched, need none",
        )
    return ok("hub", f"{urlparse(address).hostname} answers; {token}")


def _has_hub_token() -> bool:
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    file = Path(os.environ.get("HF_TOKEN_PATH", home / "token"))
    return bool(os.environ.get("HF_TOKEN")) or (os.access(file, os.R_OK) and file.stat().st_size > 0)


def _wandb() -> Finding:
    """Says where runs are tracked; never a key."""
    mode = os.environ.get("WANDB_MODE", "")
    if mode in WANDB_OFF:
        return ok("wandb", f"WANDB_MODE={mode}")
    host = wandb_host()
    if has_wandb_key():
        return ok("wandb", f"a key for {host} is set: runs are tracked online")
    return note("wandb", f"no key for {host}: runs are recorded offline", "wandb login, or tracker=none for no record")
