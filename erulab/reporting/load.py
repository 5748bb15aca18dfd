"""Run folders, read back: what is there is given as it is, what is not there is named, nothing is made up."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from erulab.errors import DataError
from erulab.redaction import redacted
from erulab.rundir import RunDir

MODELS = ("target", "unlearned", "oracle")
ATTACK_KEYS = {
    "attack",
    "setting",
    "metric",
    "headline",
    "valid",
    "standing",
    "reason",
    "n",
    "note",
}  # of every row of attacks.json
NO_RESULT = ("data", "report")  # entries of stages.json that say nothing of a model


@dataclass(frozen=True)
class RunResult:
    """One run folder. A file that is missing is an empty dict or list here; `missing` says what that means."""

    path: Path
    config: dict[str, Any]
    scores: dict[str, dict[str, Any]]  # model -> flat metric names -> value
    attacks: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    stages: dict[str, dict[str, Any]]
    env: dict[str, Any]
    metrics: list[dict[str, Any]]  # of unlearning, in order of step
    ended: dict[str, Any]  # exit.json: code, message, rank

    @property
    def name(self) -> str:
        return self.path.name

    def choice(self, group: str) -> str:
        """The name chosen for a config group (`method`, `reward`, ...)."""
        options = self.config.get(group)
        return str(options["name"]) if isinstance(options, dict) and "name" in options else ""

    @property
    def checkpoint(self) -> str:
        """The checkpoint that was given in place of an unlearned model: no method of the config made it. Else ""."""
        return str((self.config.get("model") or {}).get("unlearned") or "")

    @property
    def made_by(self) -> str:
        """The method, or that the unlearned model was given."""
        return "given" if self.checkpoint else self.choice("method")

    @property
    def has_results(self) -> bool:
        """Whether any stage left something to report."""
        finished = [name for name, entry in self.stages.items() if entry.get("done") and name not in NO_RESULT]
        return bool(self.scores or self.attacks or finished)

    @property
    def missing(self) -> tuple[str, ...]:
        """Stages that the config asks for and that have not finished."""
        wanted = [str(stage) for stage in self.config.get("stages", [])]
        if not self.config.get("attack"):
            wanted = [stage for stage in wanted if stage != "attack"]
        # Nothing is trained for these: the product is the oracle or the target.
        if self.choice("method") in ("retrain", "none"):
            wanted = [stage for stage in wanted if stage != "unlearn"]
        model = self.config.get("model") or {}
        given = {
            stage
            for stage, key in (("target", "target"), ("oracle", "oracle"), ("unlearn", "unlearned"))
            if model.get(key)
        }
        return tuple(s for s in wanted if s not in given and not self.stages.get(s, {}).get("done"))


def load_run(folder: Path) -> RunResult:
    """One run folder.

    Raises:
        DataError: the folder is no run, or a file in it is damaged.
    """
    rundir = RunDir(folder)
    if not rundir.run_yaml.is_file():
        raise DataError(f"{folder} is no run folder: it has no run.yaml; name a folder that erulab.run made")
    return RunResult(
        path=folder,
        config=_config(rundir.run_yaml),
        scores=_json(rundir.scores_json, {}),
        attacks=_attacks(rundir.attacks_json),
        samples=_json(rundir.samples_json, []),
        stages=_json(rundir.stages_json, {}),
        env=redacted(_json(rundir.env_json, {})),
        metrics=_lines(rundir.metrics_jsonl),
        ended=_json(rundir.exit_json, {}),
    )


def load_runs(folders: Sequence[Path]) -> list[RunResult]:
    """Runs of run and sweep folders, in the order given; a run named twice comes once.

    Args:
        folders: a folder that is neither stands for every run below it, by name.
    Raises:
        DataError: a folder neither is nor holds a run or sweep, or a file in it is damaged.
    """
    runs: dict[Path, RunResult] = {}
    for folder in folders:
        for job in _jobs(Path(folder)):
            runs.setdefault(job.resolve(), load_run(job))
    if not runs:
        raise DataError(
            f"no job of {', '.join(str(folder) for folder in folders)} has started: there is no run to show"
        )
    return list(runs.values())


def _jobs(folder: Path) -> list[Path]:
    sweep = folder / "sweep.json"
    if not sweep.is_file():
        runs = list(_below(folder))
        if not runs:
            raise DataError(f"{folder} is no run or sweep folder: neither run.yaml nor sweep.json is in it or below it")
        return runs
    # A job that never started has no folder yet: the others can be compared all the same.
    named = [Path(job["folder"]) for job in _json(sweep, {})["jobs"]]
    return [job for job in (_found(path, folder) for path in named) if RunDir(job).run_yaml.is_file()]


def _below(folder: Path) -> Iterator[Path]:
    """The run folders that a folder is or holds; hidden ones (caches) hold none."""
    for path, folders, files in os.walk(folder):
        if RunDir(path).run_yaml.name in files:
            folders.clear()
            yield Path(path)
        folders[:] = sorted(name for name in folders if not name.startswith("."))


def _found(job: Path, sweep: Path) -> Path:
    """A job's folder. Its path was written in the folder the sweep was typed in; outputs may have been moved since."""
    moved = sweep.resolve().parent.parent / job.parent.name / job.name
    return moved if not RunDir(job).run_yaml.is_file() else job


def _config(file: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is damaged: {str(error).splitlines()[0]}; run the same command again") from error
    if not isinstance(config, dict):
        raise DataError(f"{file} holds no config; run the same command again")
    plain: dict[str, Any] = redacted(config)
    return plain


def _attacks(file: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = _json(file, [])
    if not all(isinstance(row, dict) and row.keys() >= ATTACK_KEYS for row in rows):
        raise DataError(
            f"{file} has rows without {', '.join(sorted(ATTACK_KEYS))}: another version of erulab wrote them; "
            "run the same command again with rerun=true"
        )
    return rows


def _json(file: Path, empty: Any) -> Any:
    if not file.is_file():
        return empty
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}; run the same command again") from error
    if not isinstance(value, type(empty)):
        raise DataError(f"{file} must hold a JSON {'object' if empty == {} else 'list'}; run the same command again")
    return value


def _lines(file: Path) -> list[dict[str, Any]]:
    if not file.is_file():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    rows = []
    # What follows the last newline is a line that a crash cut short, or nothing.
    for number, line in enumerate(lines[:-1], 1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise DataError(f"{file}:{number} is no JSON line: {error}") from error
    return rows
