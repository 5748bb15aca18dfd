"""The files of a run: the only place that knows their names."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from erulab.errors import EnvironmentFault, IntegrityFault


class RunDir:
    """A run folder. Its files are a public interface, described in the README; all are written atomically."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.run_yaml = self.path / "run.yaml"  # the resolved config
        self.env_json = self.path / "env.json"  # versions, git, hardware, command
        self.run_log = self.path / "run.log"  # rank 0's log
        self.launcher_log = self.path / "torchrun.log"  # what starts several ranks; only where there are several
        self.metrics_jsonl = self.path / "metrics.jsonl"  # one object a logged unlearning step
        self.model = self.path / "model"  # the unlearned model, Hugging Face format
        self.adapter = self.path / "adapter"  # in its place with artifacts.model=adapter, in peft's format
        self.scores_json = self.path / "scores.json"
        self.attacks_json = self.path / "attacks.json"
        self.samples_json = self.path / "samples.json"  # generations: can hold what must be forgotten
        self.stages_json = self.path / "stages.json"
        self.report_md = self.path / "report.md"
        self.report_html = self.path / "report.html"
        self.plots = self.path / "plots"
        self.exit_json = self.path / "exit.json"  # {"code", "message", "rank"}
        self.lock = self.path / "lock"

    def rank_log(self, rank: int) -> Path:
        """Everything rank `rank` printed."""
        return self.path / f"rank{rank}.log"

    def make(self) -> None:
        """Makes the folder.

        Raises:
            EnvironmentFault: it cannot be made or written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise EnvironmentFault(
                f"cannot make the run folder {self.path}: {error.strerror}; try another output=FOLDER"
            ) from None
        if not os.access(self.path, os.W_OK):
            raise EnvironmentFault(f"cannot write to {self.path}; try another output=FOLDER")

    def write_text(self, path: Path, text: str) -> None:
        """Writes a file at once: readers see the old text or the new, never a part."""
        self.write_bytes(path, text.encode())

    def write_bytes(self, path: Path, content: bytes) -> None:
        """As `write_text`, of an image."""
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp's files are private; these are for whoever may read the folder.
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    def write_json(self, path: Path, value: Any) -> None:
        """Figures that are not finite become null: NaN is no JSON."""
        self.write_text(path, json.dumps(_finite(value), indent=1, ensure_ascii=False) + "\n")

    def read_json(self, path: Path) -> Any:
        """
        Raises:
            IntegrityFault: the file is no JSON.
        """
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise IntegrityFault(f"{path} is damaged ({error}); delete it, or repeat the run with rerun=true") from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[int]:
        """Holds the folder for one run; yields the lock's file descriptor, for workers to inherit.

        The operating system drops the lock with the last process that holds the descriptor, so a run that was
        killed leaves nothing to clean up, and a worker that outlives its parent still holds it.

        Raises:
            EnvironmentFault: another run holds it.
        """
        handle = self._take_lock()
        try:
            holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
            os.ftruncate(handle, 0)
            os.pwrite(handle, holder.encode(), 0)
            yield handle
        finally:
            self.lock.unlink(missing_ok=True)
            os.close(handle)

    def _take_lock(self) -> int:
        while True:
            handle = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A holder that has just ended removed the file: then this lock is on a file nobody else can see.
                if self.lock.exists() and os.path.samestat(os.fstat(handle), os.stat(self.lock)):
                    return handle
            except OSError:
                holder = self._holder(handle)
                os.close(handle)
                raise EnvironmentFault(
                    f"{self.path} is in use by {holder}; wait for it, stop it, or choose another output=FOLDER"
                ) from None
            os.close(handle)

    @staticmethod
    def _holder(handle: int) -> str:
        try:
            holder = json.loads(os.pread(handle, 4096, 0))
        except ValueError:  # it is just being written
            return "another run"
        return f"process {holder['pid']} on {holder['host']}"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
