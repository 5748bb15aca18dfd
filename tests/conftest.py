"""What all tests share: one thread per process, results made once for all workers, the marker `quick`."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# Tiny models gain nothing from a second thread, and two workers with two threads each wait for one another. Tests that
# compare runs bit by bit need a fixed number. Processes that tests start inherit it.
os.environ["OMP_NUM_THREADS"] = "1"
# A shell ignores SIGINT in what it runs in the background; tests of signals need Python's own handler.
signal.signal(signal.SIGINT, signal.default_int_handler)

TESTS = Path(__file__).parent
# Left out of `-m quick`: folders that start whole runs or other processes, and files of more than about 10 s. Of the
# rest, every test is quick. A new file is quick unless its folder or the file is named here.
SLOW = (
    "acceptance/",
    "bench/",
    "cli/",
    "commands/test_real_run.py",
    "commands/test_startup.py",
    "launch/",
    "launching/",
    "pipeline/",
    "planning/",
    "reliability/",
    "stages/",
    "study/",
    "cards/test_push.py",
    "tuning/",
    "tracking/test_others.py",
    "tracking/test_upload.py",
    "tracking/test_wandb.py",
    "costs/test_memory.py",
    "evaluation/external/test_harness.py",
    "evaluation/test_lm_eval.py",
    "models/test_smollm2.py",
    "reporting/test_notebooks.py",
    "reporting/test_pages.py",
    "test_redaction.py",
    "training/test_assembly.py",
    "training/test_sharded.py",
    "training/test_zero.py",
)

# Last of the slow files: it reads what test_zero.py makes by then, or its worker would wait for over a minute.
READS_DEEPSPEED = "training/test_sharded.py"

Make = Callable[[Path], None]
MadeOnce = Callable[[str, Make], Path]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the quick tests and runs them last, so that no worker is left alone with a long file at the end."""
    for item in items:
        if not _file_of(item).startswith(SLOW):
            item.add_marker(pytest.mark.quick)
    items.sort(key=lambda item: (item.get_closest_marker("quick") is not None, _file_of(item) == READS_DEEPSPEED))


def _file_of(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).as_posix()


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
                shutil.rmtree(made, ignore_errors=True)  # of a worker whose attempt failed
                made.mkdir()
                make(made)
                complete.touch()
        return made

    return folder
