"""Faults of the machine: which errors are one, in one line, with the exit code. FAULTS 18 and 23."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from erulab.errors import DataError, EnvironmentFault, OutOfMemory
from erulab.faults import machine_fault, machine_faults_named


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EROFS", "EFBIG", "EACCES", "ENOTDIR", "ENAMETOOLONG", "EIO"])
def test_an_error_of_the_disk_is_the_environment_s(number: str, tmp_path: Path) -> None:
    """FAULTS 18: the system's own error, by its number; the path is named."""
    code = getattr(errno, number)
    fault = machine_fault(OSError(code, os.strerror(code), str(tmp_path / "x")))
    assert isinstance(fault, EnvironmentFault) and fault.code == 4
    assert str(tmp_path / "x") in str(fault) and "\n" not in str(fault)


@pytest.mark.parametrize(
    "text",
    [
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device",
        "I/O error: Read-only file system (os error 30)",
        "File too large (os error 27)",
        "Disk quota exceeded",
    ],
)
def test_libraries_in_other_languages_have_it_in_their_text(text: str, tmp_path: Path) -> None:
    """FAULTS 18: an error without a number or a path names the folder that the run writes to."""
    fault = machine_fault(ValueError(text), [tmp_path])
    assert isinstance(fault, EnvironmentFault) and str(tmp_path) in str(fault)


def test_a_cause_counts() -> None:
    error = RuntimeError("could not build the data set")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert isinstance(machine_fault(error), EnvironmentFault)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("unable to mmap 100 bytes from file <m.safetensors>: Cannot allocate memory (12)"),
    ],
)
def test_too_little_memory_can_be_resumed(error: Exception) -> None:
    """FAULTS 23."""
    fault = machine_fault(error)
    assert isinstance(fault, OutOfMemory) and fault.code == 75


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file or directory", "rows.jsonl"),
        FileExistsError(errno.EEXIST, "File exists", "/"),
        ValueError("permission denied by the plugin (os error 13)"),
        KeyError("memory"),
    ],
)
def test_other_errors_are_no_faults_of_the_machine(error: Exception) -> None:
    assert machine_fault(error) is None
    with pytest.raises(type(error)), machine_faults_named():
        raise error


def test_a_line_of_ours_passes_unchanged() -> None:
    with pytest.raises(DataError, match="^no rows; out of memory of them$"), machine_faults_named():
        raise DataError("no rows; out of memory of them")


def test_a_real_allocation_that_fails_is_out_of_memory() -> None:
    """FAULTS 23: what torch says on a CPU, read from torch itself."""
    with pytest.raises(OutOfMemory), machine_faults_named():
        torch.empty(2**55)


WRITES = """
import resource, signal, sys
from pathlib import Path
import torch
from safetensors.torch import save_file
from erulab.errors import ErulabError
from erulab.faults import machine_faults_named
from erulab.rundir import RunDir
folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for write in (
    lambda: RunDir(folder).write_bytes(folder / "large", bytes(9999)),
    lambda: save_file({"x": torch.zeros(9999)}, folder / "x.safetensors"),
):
    try:
        with machine_faults_named(folder):
            write()
    except ErulabError as error:
        print(error.code, error)
"""


def test_real_writes_that_fail_are_named(tmp_path: Path) -> None:
    """FAULTS 18: a limit on the size of files, by erulab's own write, which leaves no part, and by safetensors."""
    ended = subprocess.run([sys.executable, "-c", WRITES, str(tmp_path)], capture_output=True, text=True, check=False)
    lines = ended.stdout.splitlines()
    assert len(lines) == 2 and all(line.startswith("4 ") and str(tmp_path) in line for line in lines), ended
    assert not (tmp_path / "large").exists() and list(tmp_path.glob(".large*")) == []
