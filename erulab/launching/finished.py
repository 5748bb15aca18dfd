"""Tells whether a run folder holds all that a job would make, unchanged: finished.json says what it was made of.

The record is written when a run has ended well. It holds whatever the results depend on: data and given models by their
content (the key), erulab's own code, the settings that the key leaves out, commits of models from the hub; and the
content of each file that the run made, so that a damaged or removed one is missed.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from erulab import hub
from erulab.checksums import SMALL_BYTES, hash_file
from erulab.config.compose import config_to_dict
from erulab.errors import ErulabError, IntegrityFault
from erulab.launching.folder_key import folder_key
from erulab.launching.results import has_results
from erulab.options import RunConfig, TrackerName
from erulab.rundir import RunDir

PACKAGE = Path(__file__).resolve().parents[1]
# Parts of the config that change a run's files, but not its folder.
SETTINGS = ("attack", "stages", "report", "artifacts", "evaluation")
MADE = ("run.yaml", "*.json", "*.jsonl", "report.*")
MADE_FOLDERS = ("model", "adapter", "plots")
# They tell of a start of the run, of its place on a tracker or of what was removed, and may change afterwards.
NOT_MADE = ("exit.json", "env.json", "finished.json", "tracker.json", "purge.json", "host*.json")


@functools.cache
def code_identity() -> str:
    """Returns a hash of the files of the package erulab: another one may give other results or another report."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*")):
        if file.is_file() and file.suffix not in (".pyc", ".md"):
            digest.update(f"{file.relative_to(PACKAGE)}\x1f".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def record_finished(rundir: RunDir, config: RunConfig, key: str) -> None:
    """Writes finished.json after a run has ended well, unless data or given models have changed meanwhile.

    Args:
        config: of the run.
        key: its folder's key as it was before the run read any file.
    """
    try:
        unchanged = folder_key(config) == key
    except (ErulabError, OSError):  # a file that it read is gone
        unchanged = False
    if unchanged and has_results(rundir, config):
        files = {str(file.relative_to(rundir.path)): _stamp(file) for file in _made_files(rundir)}
        rundir.write_json(rundir.finished_json, {**_made_of(config, key), "files": files})


def is_whole(rundir: RunDir, config: RunConfig, key: str) -> bool:
    """Tells whether a run ended well in this folder, was made of what it would be made of now, and is all there.

    Args:
        config: what is wanted now.
        key: its folder's key now.
    """
    # A plugin's code may have changed, in files that nobody can list: the keys of the caches decide.
    if config.rerun or config.plugins:
        return False
    try:
        ended, record = rundir.read_json(rundir.exit_json), rundir.read_json(rundir.finished_json)
        if not isinstance(ended, dict) or ended.get("code") != 0 or not isinstance(record, dict):
            return False
        files = record.pop("files")
        tracker = record["tracker"]
        wanted = _made_of(config, key)
        if config.tracker.name is TrackerName.none:  # then there is nothing to be sent
            tracker = wanted["tracker"]
        if {**record, "tracker": tracker} != wanted:
            return False
        whole = all(_is_unchanged(rundir.path / name, stamp) for name, stamp in files.items())
    except (OSError, UnicodeDecodeError, IntegrityFault, KeyError, TypeError, AttributeError):  # missing or damaged
        return False
    return whole and has_results(rundir, config)


def _made_of(config: RunConfig, key: str) -> dict[str, Any]:
    values = config_to_dict(config)
    return {
        "key": key,
        "code": code_identity(),
        "settings": {part: values[part] for part in SETTINGS},
        # A sweep gives a group to the runs that have none.
        "tracker": {name: value for name, value in values["tracker"].items() if name != "group"},
        "hub": _commits(config),
    }


def _commits(config: RunConfig) -> dict[str, str | None]:
    """Returns the commit that was fetched last of each model from the hub, because the key holds only its name."""
    model = config.model
    named = [getattr(model, "path", None), model.target, *model.oracles, model.unlearned]
    named += [getattr(model, "tokenizer", None), config.evaluation.judge.model]
    fetched = {name: hub.find_fetched(name, "config.json") for name in named if name and not Path(name).is_dir()}
    return {name: None if file is None else file.parent.name for name, file in fetched.items()}


def _made_files(rundir: RunDir) -> Iterator[Path]:
    for file in sorted({file for pattern in MADE for file in rundir.path.glob(pattern)}):
        if not any(file.match(pattern) for pattern in NOT_MADE):
            yield file
    for name in MADE_FOLDERS:
        yield from sorted(file for file in (rundir.path / name).rglob("*") if file.is_file())


def _stamp(file: Path) -> dict[str, Any]:
    """Returns what a file is recognised by: its content, or inode and times where reading it would take long."""
    status = file.stat()
    if status.st_size <= SMALL_BYTES:
        return {"sha256": hash_file(file)}
    return {"bytes": status.st_size, "modified_ns": status.st_mtime_ns, "inode": status.st_ino}


def _is_unchanged(file: Path, stamp: dict[str, Any]) -> bool:
    return file.is_file() and _stamp(file) == stamp
