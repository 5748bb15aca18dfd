"""One search from its options to its best settings: `python -m erulab.run -m tune=npo`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from hydra.core.override_parser.overrides_parser import OverridesParser

from erulab.config.compose import config_to_dict
from erulab.config.shown_settings import OF_SWEEP, settings_lines
from erulab.errors import ConfigError, ErulabError, Interrupted, NumericFault
from erulab.launching.dry_run import is_dry_run, show_dry_run
from erulab.launching.folder_key import folder_key, short_hash
from erulab.launching.job import plan_job
from erulab.launching.machine import GPU
from erulab.options import Facts, RunConfig, Stage
from erulab.registry import GROUPS
from erulab.reporting import Outcome
from erulab.reporting.verdict import judge
from erulab.rundir import InUse, RunDir, make_private
from erulab.tracking.checks import check_tracked_sweep
from erulab.tuning.objective import objective_values, read_trial_run
from erulab.tuning.options import Goal, TuningOptions
from erulab.tuning.result import MEASURABLE, FinishedSearch
from erulab.tuning.search import Search, Taken
from erulab.tuning.space import Space, read_space, typed_entry
from erulab.typed import fill, to_plain

WAIT = 2.0  # seconds between two looks at what other processes have finished
OPTIONS = "hydra.sweeper"
# Parts of a run in which no choice is a better setting of the method.
NOT_SEARCHED = ("seed", "dataset", "target", "evaluation", "benchmark")
NEEDED = (Stage.target, Stage.oracle, Stage.unlearn, Stage.evaluate)

Compose = Callable[[list[str]], RunConfig]


class Launcher(Protocol):
    """What runs the trials: a launcher of sweeps."""

    def run_trials(
        self, overrides: Sequence[Sequence[str]], titles: Sequence[str], folder: str
    ) -> list[tuple[int | None, Path]]: ...

    def shared_workers(self, trackers: Iterable[str]) -> AbstractContextManager[None]: ...

    def slots(self) -> int: ...

    def job_gpus(self) -> list[GPU] | None: ...


def run_search(plain: Mapping[str, Any], arguments: Sequence[str], compose: Compose, launcher: Launcher) -> int:
    """Runs a search, or continues it; returns the exit code.

    Args:
        plain: the options as plain values.
        arguments: the overrides that were typed; a sweep among them is searched, in place of the space's own range.
        compose: returns the config of a command line.
        launcher: runs the trials.
    Raises:
        ErulabError: one line; of a trial that failed for a reason other than its settings, the line says which.
    """
    options: TuningOptions = fill(TuningOptions, dict(plain), OPTIONS)
    fixed, searched = _split_typed(arguments)
    config = compose(fixed)
    _check_trials(config)
    space = _whole_space(options, fixed, searched, config)
    check_tracked_sweep([config] * options.trials)
    key = short_hash([folder_key(config), _plain_space(space), _what_counts(options)])
    rundir = RunDir(Path(config.output) / "tuning" / key)
    searched_text = f"{options.trials} trials of {', '.join(space)}; folder: {rundir.path}"
    if is_dry_run():
        title = f"a search of {searched_text}; one trial, with the run's own values of what is searched:"
        return show_dry_run([plan_job(config, gpus=launcher.job_gpus())], [title])
    rundir.make()
    if config.artifacts.private:
        make_private(rundir.path)
    if config.tracker.group is None and not os.environ.get("WANDB_RUN_GROUP"):
        fixed = [*fixed, f"tracker.group=tune-{key}"]
    goals = 2 if options.goal is Goal.pareto else 1
    search = Search(rundir.path, "trials", space, options.sampler, options.seed, goals)
    shown = [f"search: {searched_text}", *settings_lines([config], rundir.path)[:-1], OF_SWEEP]
    print(*shown, sep="\n", flush=True)
    with launcher.shared_workers([config.tracker.name.value]):
        _run_trials(search, options, fixed, launcher)
    return FinishedSearch(search, options, rundir, fixed, compose).show()


def _run_trials(search: Search, options: TuningOptions, fixed: list[str], launcher: Launcher) -> None:
    at_once = options.at_once or launcher.slots()
    waiting = False
    while True:
        taken = search.take(at_once, options.trials)
        if not taken and not search.others():
            return
        if not taken:
            if not waiting:
                print(f"waiting for {search.others()} trials that other processes run", flush=True)
            waiting = True
            time.sleep(WAIT)
            continue
        titles = [f"trial {one.number + 1} of {options.trials}: {' '.join(one.typed)}" for one in taken]
        outcomes = launcher.run_trials([[*fixed, *one.typed] for one in taken], titles, str(search.folder))
        stopped: ErulabError | None = None
        for one, (code, folder) in zip(taken, outcomes, strict=True):
            stopped = _record(search, options, one, code, folder) or stopped
        if stopped is not None:
            raise stopped


def _record(search: Search, options: TuningOptions, taken: Taken, code: int | None, folder: Path) -> ErulabError | None:
    """Records what came out of a trial; returns the error that ends the search, if it failed for another reason than
    its settings: a full disk must not choose."""
    rundir = RunDir(folder)
    if code not in (0, NumericFault.code):
        search.give_back(taken)
        if code == InUse.code and rundir.holder() is not None:
            time.sleep(WAIT)  # the worker of a command that was killed has not ended yet: it is taken again
            return None
        return _why_stopped(code, folder)
    scores = rundir.read_json(rundir.scores_json) if code == 0 else None
    run = read_trial_run(scores, options.utility, f"{OPTIONS}.utility")
    values = objective_values(run, options)
    notes = {"knowledge_left": run.knowledge, "utility_kept": run.kept, "folder": str(folder)}
    if scores is not None:
        notes[MEASURABLE] = judge(scores, []).forgetting.outcome is not Outcome.unmeasurable
    search.tell(taken, values, notes)
    shown = "no figures"
    if values is not None and run.knowledge is not None and run.kept is not None:
        shown = f"knowledge left {run.knowledge:.3f}, utility kept {run.kept:.3f}"
    print(f"trial {taken.number + 1}: {shown}", flush=True)
    return None


def _why_stopped(code: int | None, folder: Path) -> ErulabError:
    if code is None or code == Interrupted.code:
        return Interrupted("the search stopped; type the same command to continue")
    rundir = RunDir(folder)
    ended = rundir.read_json(rundir.exit_json) if rundir.exit_json.is_file() else {}
    said = ended.get("message") or "it failed"
    fault = ErulabError(f"the search stopped at {folder}: {said}; type the same command to continue")
    fault.code = code
    return fault


def _split_typed(arguments: Sequence[str]) -> tuple[list[str], Space]:
    """Splits what was typed into the overrides of every trial and what is searched.

    Raises:
        ConfigError: a sweep that is not searched.
    """
    fixed: list[str] = []
    searched: Space = {}
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        key = override.get_key_element()
        if override.is_sweep_override():
            searched[key] = typed_entry(override)
        else:
            fixed.append(override.input_line or f"{key}={override.get_value_element_as_str()}")
    return fixed, searched


def _whole_space(options: TuningOptions, fixed: Sequence[str], searched: Space, config: RunConfig) -> Space:
    """Returns the space of the options with what was typed: a value takes a key out of it, a sweep replaces its range.

    Raises:
        ConfigError: there is nothing to search, or a key that no run has.
    """
    values = config_to_dict(config)
    typed = {override.partition("=")[0].lstrip("+") for override in fixed}
    own = {key: entry for key, entry in options.space.items() if key not in typed and key not in searched}
    space = {**read_space(own, lambda key: _value_of(values, key), f"{OPTIONS}.space"), **searched}
    if not space:
        raise ConfigError("nothing is searched: choose a preset such as tune=npo, or type KEY='interval(LOW,HIGH)'")
    for key in space:
        if key.partition(".")[0] in NOT_SEARCHED:
            raise ConfigError(
                f"{key} is not searched: the best of several would be the easiest to forget or the luckiest, no better "
                "setting; type one value, and several with the settings that the search writes"
            )
        if key not in GROUPS:
            _value_of(values, key)
    return space


def _value_of(values: Mapping[str, Any], key: str) -> Any:
    """Returns the value of a config at a dotted key.

    Raises:
        ConfigError: there is no such key.
    """
    value: Any = values
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise ConfigError(f"{OPTIONS}.space: unknown key {key}; --cfg job shows the keys of a run")
        value = value[part]
    return value


def _check_trials(config: RunConfig) -> None:
    """Refuses settings of trials by which nothing could be chosen, or not honestly.

    Raises:
        ConfigError: the key and what to type.
    """
    if missing := [stage.value for stage in NEEDED if stage not in config.stages]:
        raise ConfigError(
            f"a trial is judged by target, oracle and unlearned model, and stages lacks {', '.join(missing)}; type "
            "stages=[target,oracle,unlearn,evaluate]"
        )
    if config.evaluation.facts is not Facts.validation:
        raise ConfigError(
            f"evaluation.facts={config.evaluation.facts.value}: settings are chosen by the facts that no report shows; "
            "type evaluation.facts=validation"
        )


def _plain_space(space: Space) -> dict[str, Any]:
    return {key: asdict(entry) for key, entry in space.items()}


def _what_counts(options: TuningOptions) -> dict[str, Any]:
    """Returns the options that a search depends on: the number of trials only says how far it goes."""
    plain: dict[str, Any] = to_plain(asdict(options))
    return {key: value for key, value in plain.items() if key not in ("space", "trials", "at_once")}
