"""What all tests share: one thread per process, results made once for all workers, the marker `quick`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# Tiny models gain nothing from a second thread, and two workers with two threads each wait for one another. Tests that
# compare runs bit by bit need a fixed number. Processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"

Make = Callable[[Path], None]
MadeOnce = Callable[[str, Make], Path]


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """Returns a function (name, make) -> folder; `make` fills the folder once for all workers of pytest-xdist.

    The first worker that asks for a name makes it, the others wait. What it holds is for reading only: a test that
    changes something takes a copy.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # of all workers

    def folder(name: str, make: Make) -> Path:
        made, complete = base / f"shared-{name}", base / f"shared-{name}.complete"
        with FileLock(base / f"shared-{name}.lock"):
            if not complete.exists():
                made.mkdir()
                make(made)
                complete.touch()
        return made

    return folder
