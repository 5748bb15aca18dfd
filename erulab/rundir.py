"""The files of a run folder: the only place that knows their names."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from erulab.errors import EnvironmentFault, IntegrityFault
from erulab.redaction import without_variables

# holder() takes the lock for an instant to look; _take_lock retries for this long before it reports InUse.
PROBE_SECONDS = 0.2
CARD = "README.md"  # in model/ and adapter/: the model card, the one file that is not the cache's


class InUse(EnvironmentFault):
    """Another run holds the folder."""


class RunDir:
    """A run folder. Its files are a public interface, described in reporting/README.md; all are written atomically."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.run_yaml = self.path / "run.yaml"  # the resolved config
        self.env_json = self.path / "env.json"  # versions, git, hardware, command
        self.run_log = self.path / "run.log"  # rank 0's log
        self.metrics_jsonl = self.path / "metrics.jsonl"  # one object per logged unlearning step
        self.model = self.path / "model"  # the unlearned model, Hugging Face format
        self.adapter = self.path / "adapter"  # instead, with artifacts.model=adapter, in peft's format
        self.scores_json = self.path / "scores.json"
        self.intervals_json = self.path / "intervals.json"  # the 95 % intervals of its figures
        self.attacks_json = self.path / "attacks.json"
        self.uds_json = self.path / "uds.json"  # the Unlearning Depth Score by row and by layer
        self.samples_json = self.path / "samples.json"  # generated text: can hold what must be forgotten
        self.alternatives_json = self.path / "alternatives.json"  # answers the target gave for altpo; as samples.json
        self.judged_jsonl = self.path / "judged.jsonl"  # what a judge was asked and said; as samples.json
        self.stages_json = self.path / "stages.json"
        self.report_md = self.path / "report.md"
        self.report_html = self.path / "report.html"
        self.plots = self.path / "plots"
        self.tracker_json = self.path / "tracker.json"  # the ids by which trackers know the run, and what they have
        self.tensorboard = self.path / "tensorboard"  # its event files, with tracker=tensorboard
        self.exit_json = self.path / "exit.json"  # {"code", "message", "rank"}
        self.finished_json = self.path / "finished.json"  # of what a finished run was made, and its files

    def audit_json(self, request: str) -> Path:
        """Returns the file that says what one request asked for and what was done; "" names the only request."""
        return self.path / (f"audit-{re.sub(r'[^A-Za-z0-9._-]', '_', request)}.json" if request else "audit.json")

    @property
    def audits(self) -> list[Path]:
        """The files of `audit_json` that are there, in order of name."""
        return sorted(self.path.glob("audit*.json"))

    def external_json(self, benchmark: str) -> Path:
        """Returns the file with the versions and settings of a benchmark that another program asks, by model."""
        return self.path / f"{benchmark}.json"

    def rank_log(self, rank: int) -> Path:
        """Returns the file with all output of one rank."""
        return self.path / f"rank{rank}.log"

    def beat(self, rank: int) -> Path:
        """Returns the file with the pulse of one rank, which exists while a run of several ranks works."""
        return self.path / f".rank{rank}.beat"

    @property
    def beats(self) -> list[Path]:
        """The pulses of all ranks that have started."""
        return list(self.path.glob(".rank*.beat"))

    def launcher_log(self, host_index: int = 0) -> Path:
        """Returns the log of torchrun on one host, which exists if there are several ranks."""
        return self._file_of_host("torchrun", host_index, ".log")

    def lock(self, host_index: int = 0) -> Path:
        """Returns the lock that the run holds; with several hosts each holds one of its own."""
        return self._file_of_host("lock", host_index)

    def host_note(self, host_index: int) -> Path:
        """Returns the file in which one host tells the others its status, during a run on several hosts."""
        return self.path / f"host{host_index}.json"

    def _file_of_host(self, name: str, host_index: int, suffix: str = "") -> Path:
        return self.path / f"{name}{host_index or ''}{suffix}"

    def clear(self) -> None:
        """Removes what the last start left to tell how it went, so that it is not taken for this one's."""
        logs = [*self.path.glob("torchrun*.log"), *self.path.glob("rank*.log")]
        for old in [self.exit_json, self.finished_json, *logs, *self.beats]:
            old.unlink(missing_ok=True)
        self.rank_log(0).touch()

    def make(self) -> None:
        """Makes the folder.

        Raises:
            EnvironmentFault: it cannot be made or written.
        """
        make_folder(self.path, "run folder", "output")

    def write_text(self, path: Path, text: str) -> None:
        """Writes a file at once: readers see the old text or the new, never a part."""
        write_whole(path, text.encode())

    def write_bytes(self, path: Path, content: bytes) -> None:
        """Writes a binary file, such as an image, as `write_text` does."""
        write_whole(path, content)

    def write_json(self, path: Path, value: Any) -> None:
        """Writes a value as JSON, without the values of secret environment variables.

        Figures that are not finite become null, because NaN is no JSON.
        """
        plain = without_variables(_replace_not_finite(value))
        self.write_text(path, json.dumps(plain, indent=1, ensure_ascii=False) + "\n")

    def read_json(self, path: Path) -> Any:
        """Reads a JSON file.

        Raises:
            IntegrityFault: the file is no JSON.
        """
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise IntegrityFault(f"{path} is damaged ({error}); delete it, or repeat the run with rerun=true") from None

    @contextlib.contextmanager
    def locked(self, run_id: str | None = None, host_index: int = 0) -> Iterator[int]:
        """Holds the folder for one run; yields the lock's file descriptor, for workers to inherit.

        The operating system drops the lock with the last process that holds the descriptor, so a run that was
        killed leaves nothing to clean up, and a worker that outlives its parent still holds it.

        Args:
            run_id: the same on all hosts of a run.
            host_index: the index of this host, which holds a lock of its own.
        Raises:
            InUse: another run holds it.
        """
        handle = self._take_lock(host_index)
        try:
            holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "run_id": run_id})
            os.ftruncate(handle, 0)
            os.pwrite(handle, holder.encode(), 0)
            os.fsync(handle)  # for other hosts
            yield handle
        finally:
            self.lock(host_index).unlink(missing_ok=True)
            os.close(handle)

    def holder(self, host_index: int = 0) -> dict[str, Any] | None:
        """Returns who holds the lock (pid, host, run_id): None if nobody does, empty while it is being written."""
        try:
            handle = os.open(self.lock(host_index), os.O_RDONLY)
        except FileNotFoundError:
            return None
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return self._read_holder(handle)
        finally:
            os.close(handle)
        return None

    def _take_lock(self, host_index: int) -> int:
        lock = self.lock(host_index)
        deadline = time.monotonic() + PROBE_SECONDS
        while True:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # A holder that has just ended has removed the file: then this lock is on a file that nobody can open.
                if lock.exists() and os.path.samestat(os.fstat(handle), os.stat(lock)):
                    return handle
            except OSError:
                if time.monotonic() < deadline:
                    os.close(handle)
                    time.sleep(PROBE_SECONDS / 10)
                    continue
                known = self._read_holder(handle)
                os.close(handle)
                raise InUse(
                    f"{self.path} is in use by {_holder_in_words(lock, known)}, or choose another output=FOLDER"
                ) from None
            os.close(handle)

    @staticmethod
    def _read_holder(handle: int) -> dict[str, Any]:
        try:
            holder: dict[str, Any] = json.loads(os.pread(handle, 4096, 0))
        except ValueError:  # it is just being written
            return {}
        return holder


def _holder_in_words(lock: Path, known: dict[str, Any]) -> str:
    """Returns who holds a lock, and that one may wait for it or stop it.

    Args:
        lock: its file.
        known: what the holder wrote into it; empty if that cannot be read.
    """
    if not known:
        return "another run; wait for it, stop it"
    pid, host = known["pid"], known["host"]
    if host != socket.gethostname():
        return f"process {pid} on {host}; wait for it, stop it"
    from erulab.open_files import holders_of  # loads psutil; most commands never ask

    holders = holders_of([lock])[lock]
    # A command that was killed leaves its worker, or torchrun, with the lock that it inherited.
    if not holders or pid in holders:
        return f"process {pid} on {host}; wait for it, stop it (kill {pid})"
    return (
        f"process {holders[0]} on {host}, a worker that outlived its command (process {pid}); wait for it, stop it "
        f"(kill {holders[0]})"
    )


def _replace_not_finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_not_finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_not_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file at once, on the disk before it has its name: readers and power cuts meet the old one or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    # Opened by hand: mkstemp makes private files, and correcting that needs the umask, which no thread can read safely.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the first error is the one to tell
            os.unlink(temporary)
        raise


def make_folder(path: Path, what: str, key: str) -> None:
    """Makes a folder that a run writes to.

    Args:
        what: what the folder is, for people.
        key: the option that names another one.
    Raises:
        EnvironmentFault: it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"cannot make the {what} {path}: {error.strerror}; try another {key}=FOLDER") from None
    if not os.access(path, os.W_OK):
        raise EnvironmentFault(f"cannot write to {path}; try another {key}=FOLDER")


def make_private(path: Path) -> None:
    """Closes a folder to other users, after making it if it is missing; nobody else reaches the files in it.

    Raises:
        EnvironmentFault: it belongs to another user, or cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    except OSError as error:
        raise EnvironmentFault(
            f"cannot close {path} to other users: {error.strerror}; type artifacts.private=false, or name a folder of "
            "yours with output= and cache="
        ) from None


def give_usual_permissions(file: Path | str) -> None:
    """Gives a file the permissions of a new one; libraries that write a file aside first make it private."""
    # A new file beside it tells which these are: no thread can ask for the umask without changing it for all.
    probe = Path(file).with_name(f".{secrets.token_hex(8)}")
    handle = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        os.chmod(file, stat.S_IMODE(os.fstat(handle).st_mode))
    finally:
        os.close(handle)
        os.unlink(probe)
