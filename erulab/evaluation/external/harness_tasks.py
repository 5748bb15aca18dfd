"""The tasks that lm-evaluation-harness is asked for: found, refused where unsafe, and identified by content."""

from __future__ import annotations

import functools
import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lazy_loader

from erulab.errors import ConfigError, DataError
from erulab.typed import did_you_mean

if TYPE_CHECKING:
    import numpy as np
else:
    np = lazy_loader.load("numpy")

# The seeds with which `simple_evaluate` loads and asks its tasks; some tasks shuffle the choices while they are loaded.
RANDOM_SEED, NUMPY_SEED = 0, 1234


@functools.cache
def task_manager(include_path: str | None) -> Any:
    """Returns the harness's index of its own tasks and of those of a folder; making it takes several seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=include_path)


def check_names(manager: Any, names: Sequence[str]) -> None:
    """Checks that every task exists and runs no code that a model wrote.

    Raises:
        ConfigError: one is unknown or marked as unsafe by the harness.
    """
    for name in names:
        if name not in manager.task_index:
            near = did_you_mean(name, manager.all_tasks)
            raise ConfigError(
                f"benchmark.lm_eval.tasks: lm_eval has no task {name}{near}; lm_eval ls tasks lists those it has, and "
                "tasks of your own are read from benchmark.lm_eval.include_path"
            )
        if (manager.task_index[name].cfg or {}).get("unsafe_code"):
            raise _unsafe_error(name)


def load_tasks(manager: Any, names: Sequence[str]) -> dict[str, Any]:
    """Loads tasks with their questions, from the hub or from local files.

    Returns:
        Every single task by its name; groups are given as their tasks.
    Raises:
        ConfigError: a task runs code that the model writes, or asks about images or sound.
        DataError: a task cannot be loaded.
    """
    random.seed(RANDOM_SEED)
    np.random.seed(NUMPY_SEED)
    tasks: dict[str, Any] = {}
    for name in names:
        try:
            found = manager.load([name])["tasks"]
        except Exception as error:  # a task's file may hold code, and hub and data sets fail in many ways
            raise DataError(
                f"benchmark.lm_eval.tasks: {name} cannot be loaded ({type(error).__name__}: {_first_line(error)}); "
                "without a connection its data set must be in the hub's cache or local files"
            ) from error
        for one, task in found.items():
            if getattr(task, "UNSAFE_CODE", False):
                raise _unsafe_error(one)
            if getattr(task, "MULTIMODAL", False):
                raise ConfigError(f"benchmark.lm_eval.tasks: {one} asks about images or sound; leave {name} out")
            if tasks.setdefault(one, task) is not task:
                raise ConfigError(f"benchmark.lm_eval.tasks names {one} twice, in {name} too; leave one of them out")
    return tasks


def content_of(task: Any, shots: int | None) -> dict[str, Any]:
    """Returns a task's version and a hash of its questions, and of its examples where prompts have some.

    Args:
        shots: examples per prompt; None: the task's own number.
    """
    own = task.config.num_fewshot
    # The harness keeps a task at 0 examples if its file says 0.
    count = own if shots is None or own == 0 else shots
    content = {"version": task.VERSION, "questions": _hash(task.eval_docs)}
    return content | ({"examples": count, "drawn_from": _hash(task.fewshot_docs())} if count else {})


def hash_folder(folder: Path) -> str:
    """Hashes names and bytes of all files of a folder and of the folders in it, 32 hex digits."""
    total = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        total.update(f"{file.relative_to(folder)}\x1f".encode())
        with file.open("rb") as content:
            total.update(hashlib.file_digest(content, "sha256").digest())
    return total.hexdigest()[:32]


def _hash(documents: Iterable[Any]) -> str:
    total = hashlib.sha256()
    for document in documents:
        total.update(json.dumps(document, sort_keys=True, default=str).encode() + b"\n")
    return total.hexdigest()[:32]


def _unsafe_error(name: str) -> ConfigError:
    return ConfigError(
        f"benchmark.lm_eval.tasks: {name} runs code that the model writes, which erulab does not; leave it out, or run "
        "lm_eval itself on RUN_DIR/model in a sandbox"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0][:300]
