"""What a finished search shows and writes: its trials, the best of them, and a config that can be typed."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from erulab.errors import NumericFault
from erulab.launching import machine
from erulab.options import Facts, RunConfig
from erulab.redaction import redacted_text
from erulab.registry import conf_folders
from erulab.reporting.rendering import Cell, Table
from erulab.rundir import RunDir
from erulab.tracking.record import upload_line_of_sweep
from erulab.tuning.experiment import experiment_yaml
from erulab.tuning.objective import TrialRun
from erulab.tuning.options import Goal, TuningOptions
from erulab.tuning.search import SAME, TYPED, Search
from erulab.typed import to_plain

MEASURABLE = "measurable"  # attribute of a trial: whether its target knows enough for knowledge left to mean something
# Keys that are typed with the best settings again, because a file of settings is no place for them.
TYPED_AGAIN = ("output", "cache", "plugins", "tracker", "engine")
STATES = {TrialState.COMPLETE: "", TrialState.FAIL: "no figures", TrialState.RUNNING: "not finished"}


@dataclass(frozen=True)
class FinishedSearch:
    """A search whose trials are done.

    fixed: the overrides of every trial.
    compose: returns the config of a command line.
    """

    search: Search
    options: TuningOptions
    rundir: RunDir
    fixed: list[str]
    compose: Callable[[list[str]], RunConfig]

    def show(self) -> int:
        """Prints the trials and the command of the best settings, and writes both; returns the exit code.

        Raises:
            NumericFault: no trial has figures.
        """
        trials = self.search.trials
        print(self._table(trials).render("text"), flush=True)
        best = best_trial(trials, self.options)
        self.rundir.write_json(self.rundir.path / "search.json", self._plain(trials, best))
        if best is None:
            raise NumericFault(
                f"no trial has figures (their run folders are in {self.rundir.path / 'search.json'}); search lower "
                "learning rates, as in trainer.lr='tag(log,interval(1e-6,1e-4))'"
            )
        typed: list[str] = best.user_attrs[TYPED]
        name = self._write_experiment([*self.fixed, *typed])
        if best.user_attrs.get(MEASURABLE) is False:
            print(
                "not measurable: the target does not know the facts, so knowledge left is noise and chose nothing; "
                "learn it longer (target.epochs=), or name a model that knows them (model.target=)"
            )
        again = [one for one in self.fixed if one.partition("=")[0].partition(".")[0] in TYPED_AGAIN]
        again = [one for one in again if not one.startswith("tracker.group=tune-")]
        command = ["--config-dir", str(self.rundir.path / "conf"), f"experiment={name}", *again]
        print(f"best: trial {best.number + 1}: {' '.join(typed)}")
        print("report it, on the facts that chose nothing:", flush=True)
        print(redacted_text(f"python -m erulab.run {shlex.join(command)}"), flush=True)
        folders = dict.fromkeys(trial.user_attrs["folder"] for trial in trials if "folder" in trial.user_attrs)
        line = upload_line_of_sweep(self.rundir.path, [RunDir(folder) for folder in folders])
        if line is not None:
            print(f"to upload all trials: {line}", flush=True)
        return 0

    def _write_experiment(self, overrides: list[str]) -> str:
        """Writes the settings of a trial as a choice of `experiment`; returns its name."""
        conf = self.rundir.path / "conf"
        for own in conf_folders()[:-1]:
            if own.resolve() != conf.resolve():
                shutil.copytree(own, conf, dirs_exist_ok=True)  # a command has one --config-dir, and may need both
        config = self.compose(overrides)
        name = f"tuned_{config.method.name}"
        text = experiment_yaml(config, self.compose)
        self.rundir.write_text(conf / "experiment" / f"{name}.yaml", redacted_text(text))
        return name

    def _table(self, trials: Sequence[FrozenTrial]) -> Table:
        best, front = best_trial(trials, self.options), pareto_front(trials)
        keys = list(dict.fromkeys(one.partition("=")[0] for trial in trials for one in trial.user_attrs.get(TYPED, ())))
        figures = ["knowledge left", "utility kept"]
        if self.options.goal is Goal.knowledge:
            figures.append("objective")
        rows = [self._row(trial, keys, trial is best, trial.number in front) for trial in trials]
        floor, penalty = self.options.floor, self.options.penalty
        objective = f"Objective: |knowledge left| + {penalty:g} * what utility kept lacks to {floor:g}."
        notes = [objective] if self.options.goal is Goal.knowledge else []
        notes.append("Figures are of validation facts, which choose; no report shows them.")
        return Table(("trial", *keys, *figures, ""), tuple(rows), tuple(notes)).without_empty_columns()

    def _row(self, trial: FrozenTrial, keys: Sequence[str], best: bool, front: bool) -> tuple[Cell, ...]:
        values = dict(one.split("=", 1) for one in trial.user_attrs.get(TYPED, ()))
        run = read_attributes(trial)
        figures = [run.knowledge, run.kept]
        if self.options.goal is Goal.knowledge:
            figures.append(trial.values[0] if trial.values else None)
        marks = [
            "best" if best else "",
            "front" if self.options.goal is Goal.pareto and front else "",
            f"as trial {trial.user_attrs[SAME] + 1}" if SAME in trial.user_attrs else "",
            STATES.get(trial.state, trial.state.name.lower()),
        ]
        return (
            Cell(str(trial.number + 1)),
            *(Cell(values.get(key, "")) for key in keys),
            *(Cell(value=value, is_figure=True, written="" if value is None else f"{value:.3f}") for value in figures),
            Cell(", ".join(mark for mark in marks if mark)),
        )

    def _plain(self, trials: Sequence[FrozenTrial], best: FrozenTrial | None) -> dict[str, Any]:
        return {
            "command": redacted_text(machine.typed_command()),
            "options": to_plain(asdict(self.options)),
            "facts": Facts.validation.value,
            "best": None if best is None else best.number,
            "trials": [
                {"number": one.number, "state": one.state.name, "values": one.values, **one.user_attrs}
                for one in trials
            ],
        }


def read_attributes(trial: FrozenTrial) -> TrialRun:
    """Returns the figures that the search has noted with a trial."""
    return TrialRun(trial.user_attrs.get("knowledge_left"), trial.user_attrs.get("utility_kept"))


def best_trial(trials: Sequence[FrozenTrial], options: TuningOptions) -> FrozenTrial | None:
    """Returns the best trial, the first of equals; None if no trial has figures.

    With one number to minimise it has the smallest. Of a Pareto front it is the one with the least |K| that keeps the
    floor of utility, or the one that keeps the most, which is how a study chooses.
    """
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if options.goal is Goal.pareto:
        return min(complete, key=lambda trial: read_attributes(trial).rank(options.floor), default=None)
    return min(complete, key=lambda trial: trial.values[0], default=None)


def pareto_front(trials: Sequence[FrozenTrial]) -> set[int]:
    """Returns the numbers of the trials that no other beats: better in one value, at least as good in all others."""
    complete = [(trial.number, trial.values) for trial in trials if trial.state is TrialState.COMPLETE]

    def beaten(values: Sequence[float]) -> bool:
        return any(
            all(a <= b for a, b in zip(other, values, strict=True)) and list(other) != list(values)
            for _, other in complete
        )

    return {number for number, values in complete if not beaten(values)}
