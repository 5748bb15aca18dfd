"""What a run folder knows of its tracked run: the tracker's id, what was sent, and what is still to be uploaded.

The id stays in the folder, so that a run that is moved, requeued or continued is the same run of its tracker.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from erulab.errors import IntegrityFault
from erulab.options import TrackerName
from erulab.rundir import RunDir

WANDB = "wandb"  # wandb's own folder in a run folder
OFFLINE = "offline-run-*"  # one segment per process that worked on the run without a connection
# `wandb sync` takes no segment twice: it leaves this beside what it has sent.
SYNCED = "*.wandb.synced"


@dataclass(frozen=True)
class TrackedRun:
    """A run as its tracker knows it: the entry of one tracker in RUN_DIR/tracker.json.

    id: the tracker's own.
    sent: a hash of the results that it has; empty while the run works or if it stopped.
    """

    id: str
    sent: str = ""


def read_tracked(rundir: RunDir, tracker: TrackerName) -> TrackedRun | None:
    """Returns the run's entry for a tracker; None if it has none, or if the file is damaged."""
    entry = _entries(rundir).get(tracker.value)
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        return None
    return TrackedRun(entry["id"], str(entry.get("sent", "")))


def write_tracked(rundir: RunDir, tracker: TrackerName, run: TrackedRun) -> None:
    """Writes the run's entry for a tracker, beside those for other trackers."""
    entries = {**_entries(rundir), tracker.value: {"id": run.id, "sent": run.sent}}
    rundir.write_json(rundir.tracker_json, entries)


def digest(results: Any) -> str:
    """Returns a hash of results as they are sent, to tell whether a tracker has them."""
    return hashlib.sha256(json.dumps(results, sort_keys=True, default=str).encode()).hexdigest()[:16]


def upload_line(rundir: RunDir) -> str | None:
    """Returns the command that uploads every offline segment of a run; None if there is nothing to upload."""
    if not _offline_segments(rundir):
        return None
    return f"wandb sync {shlex.quote(str(rundir.path / WANDB))}"


def upload_line_of_sweep(folder: Path, rundirs: Sequence[RunDir]) -> str | None:
    """Returns the command that uploads every offline segment of a sweep's runs; None if there is nothing to upload.

    wandb finds the segments of one folder: the sweep's gets a link to each. They are relative, so that the output
    folder can be moved.

    Args:
        folder: the sweep folder.
        rundirs: the run folders of its jobs.
    """
    segments = [segment for rundir in rundirs for segment in _offline_segments(rundir)]
    if not segments:
        return None
    links = folder / WANDB
    try:
        links.mkdir(exist_ok=True)
        for segment in segments:
            link = links / segment.name
            if not link.is_symlink():
                link.symlink_to(os.path.relpath(segment.resolve(), links.resolve()))
    except OSError:  # a file system without links
        return f"wandb sync {' '.join(shlex.quote(str(segment)) for segment in segments)}"
    return f"wandb sync {shlex.quote(str(links))}"


def _offline_segments(rundir: RunDir) -> list[Path]:
    """Returns the folders of a run that wandb has written offline and not uploaded, in order of time."""
    found = sorted((rundir.path / WANDB).glob(OFFLINE))
    return [folder for folder in found if not any(folder.glob(SYNCED))]


def _entries(rundir: RunDir) -> dict[str, Any]:
    try:
        entries = rundir.read_json(rundir.tracker_json)
    except (OSError, IntegrityFault, RecursionError):
        return {}
    return entries if isinstance(entries, dict) else {}
