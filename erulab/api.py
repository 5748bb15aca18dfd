"""Runs, sweeps and their results from Python: the same workers, folders, cache and bits as the command line.

    from erulab import api
    result = api.run(["method=npo", "trainer.lr=3e-4"])
    result.verdict.words, result.scores["unlearned"]["forget/choice"], result.frame()

Errors are those of `erulab.errors`, with the line that the command line prints. Loads no torch, and pandas for frames.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra

from erulab import run as command
from erulab.config.compose import CONF, compose_run, prepare_command_line
from erulab.config.messages import USER_ERRORS, composing_fault, error_line
from erulab.errors import (
    ConfigError,
    DataError,
    EnvironmentFault,
    ErulabError,
    IntegrityFault,
    Interrupted,
    NumericFault,
)
from erulab.faults import machine_faults_named
from erulab.launching.job import is_finished, plan_job, run_job
from erulab.redaction import redacted_text
from erulab.reporting import Picture, RunResult, Verdict, comparison_table, draw_trade_off, judge_run, key_table
from erulab.reporting import load_run as read_run
from erulab.reporting import load_runs as read_runs
from erulab.reporting.frames import FRAMES, Frame, pandas_frame
from erulab.reporting.frames.latex import STYLES, latex_table
from erulab.typed import did_you_mean

if TYPE_CHECKING:
    import pandas

# Of several classes with one code, the one that says most.
BY_CODE = {
    kind.code: kind for kind in (ConfigError, DataError, EnvironmentFault, NumericFault, IntegrityFault, Interrupted)
}
# A search asks for its next trials when it knows the last ones: it has no list of jobs.
NOT_A_GRID = ("tune=", "hydra/sweeper=")


@dataclass(frozen=True, repr=False)
class Result:
    """One run, read back from its folder. A notebook shows its key figures."""

    read: RunResult

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.read.path

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """scores.json: model -> figure -> value."""
        return self.read.scores

    @property
    def attacks(self) -> list[dict[str, Any]]:
        """attacks.json: one dict per attack, setting and metric."""
        return self.read.attacks

    @property
    def verdict(self) -> Verdict:
        """Forgotten or not, utility kept, robust or not: as data, and in words (`verdict.words`)."""
        return judge_run(self.read)

    def frame(self, rows: str = "scores") -> pandas.DataFrame:
        """Returns a pandas frame; `rows`: see `Results.frame`."""
        return _frame([self.read], rows)

    def __repr__(self) -> str:
        return f"<Result {self.folder}: {self.verdict.label}>"

    def _repr_html_(self) -> str:
        return key_table(self.read).render("html")


@dataclass(frozen=True, repr=False)
class Results(Sequence[Result]):
    """Several runs in order. A notebook shows them as a table.

    errors: of the jobs of a sweep that failed, by their overrides; the other jobs are in the results.
    """

    runs: tuple[Result, ...]
    errors: dict[str, ErulabError]

    def __getitem__(self, place: Any) -> Any:
        return self.runs[place]

    def __len__(self) -> int:
        return len(self.runs)

    def frame(self, rows: str = "runs") -> pandas.DataFrame:
        """Returns a pandas frame.

        Args:
            rows: what has one row: `runs`; `arms` (means over worlds and seeds); `differences` (of arms from the first
                arm, paired); `scores` (run, model and figure); `attacks` (of attacks.json); `steps` (of unlearning).
        Raises:
            ConfigError: another word.
        """
        return _frame([one.read for one in self.runs], rows)

    def latex(self, rows: str = "arms", columns: Sequence[str] = (), style: str = "booktabs") -> str:
        """Returns a LaTeX table: the figures with their intervals, the best in bold.

        Args:
            rows: see `frame`.
            columns: names of the frame's columns; none: the settings that differ, and the figures of the verdict.
            style: `booktabs` or `siunitx`.
        Raises:
            ConfigError: another word, or no such column.
        """
        if style not in STYLES:
            raise ConfigError(f"style={style!r}: no such style of LaTeX; known: {', '.join(STYLES)}")
        frame = _chosen_frame([one.read for one in self.runs], rows)
        return latex_table(frame.with_columns(columns) if columns else frame, style)

    def trade_off(self) -> Picture | None:
        """Draws knowledge left against utility, one point per run; None if no run has both."""
        return draw_trade_off([one.read for one in self.runs])

    def __repr__(self) -> str:
        return f"<Results of {len(self)} runs, {len(self.errors)} failed>"

    def _repr_html_(self) -> str:
        return comparison_table([one.read for one in self.runs]).render("html")


def run(overrides: Sequence[str] = ()) -> Result:
    """Runs what `python -m erulab.run OVERRIDES` runs; a run that is finished is read back.

    Returns:
        The finished run.
    Raises:
        ErulabError: what the command line would say, as the class of its exit code. Interrupted: a signal stopped the
            run, and the same call continues it.
    """
    _refuse_search(overrides)
    with _as_typed(overrides):
        config, named = compose_run(overrides)
        job = plan_job(config, named)
        if is_finished(job):
            print(f"finished before: {job.rundir.path}", flush=True)
        else:
            ended = run_job(job)
            if ended.code:
                raise _error(ended.code, ended.message, job.rundir.path)
        return Result(read_run(job.rundir.path))


def sweep(overrides: Sequence[str]) -> Results:
    """Runs what `python -m erulab.run -m OVERRIDES` runs: every job is checked before the first starts.

    Returns:
        The runs of the jobs that ended well, in order, and the errors of the others.
    Raises:
        ErulabError: no job can start, or all failed. Interrupted: a signal stopped the sweep, and the same call
            continues it.
    """
    _refuse_search(overrides)
    with _as_typed(["-m", *overrides]):
        jobs = _run_jobs(overrides)
    errors, folders = {}, {}
    for job in jobs:
        typed, folder, code = " ".join(job.overrides), Path(job.working_dir), job.return_value
        if code is None or code == Interrupted.code:
            done = sum(one.return_value == 0 for one in jobs)
            raise Interrupted(f"stopped: {done} of {len(jobs)} jobs are done; the same call continues")
        if code:
            errors[redacted_text(typed)] = _error(code, _last_message(folder), folder)
        else:
            folders[folder] = typed
    if not folders:
        raise next(iter(errors.values()))
    return Results(tuple(Result(read_run(folder)) for folder in folders), errors)


def load(folders: str | Path | Sequence[str | Path]) -> Results:
    """Reads finished runs; what is damaged in them is left out, with a warning that says which file.

    Args:
        folders: one or several: run folders, sweep folders, or folders that hold runs.
    Raises:
        DataError: a folder holds no run or sweep.
    """
    several = [folders] if isinstance(folders, str | Path) else folders
    found = read_runs([Path(one) for one in several])
    for line in (line for one in found for line in one.damaged):
        warnings.warn(redacted_text(line), stacklevel=2)
    return Results(tuple(map(Result, found)), {})


def _run_jobs(overrides: Sequence[str]) -> list[Any]:
    """Lets Hydra expand and launch the jobs as for a command line; returns one JobReturn per job."""
    prepare_command_line(overrides)
    GlobalHydra.instance().clear()
    try:
        hydra = Hydra.create_main_hydra2("run", create_config_search_path(str(CONF)))
        with command.scratch_named():
            batches = hydra.multirun("run", command.main, list(overrides), with_log_configuration=False)
    finally:
        GlobalHydra.instance().clear()
    return [job for batch in batches for job in batch]


@contextlib.contextmanager
def _as_typed(arguments: Sequence[str]) -> Iterator[None]:
    """Makes the block one command: files name it, and its errors are those of `erulab.errors`."""
    flag = next((one for one in arguments if one.startswith("-") and one != "-m"), None)
    if flag is not None:
        raise ConfigError(f"{flag}: name overrides only, KEY=VALUE; for --config-dir set ERULAB_CONF=FOLDER")
    if threading.current_thread() is not threading.main_thread():
        raise ConfigError(
            "erulab.api runs in the main thread only, where Ctrl-C reaches it; start a process of its own"
        )
    typed, sys.argv = sys.argv, ["erulab.run", *arguments]
    # Workers are processes of their own: they find erulab where this one did, also in a checkout that is not installed.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, str(Path(command.__file__).parents[1])]))
    try:
        with machine_faults_named():
            yield
    except ErulabError:
        raise
    except USER_ERRORS as error:
        raise ConfigError(redacted_text(error_line(error))) from None
    except Exception as error:
        line = composing_fault(error)
        if line is None:
            raise
        raise ConfigError(line) from None
    finally:
        sys.argv = typed
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


def _error(code: int, message: str, folder: Path) -> ErulabError:
    if code == 1:
        return ErulabError(f"a fault of erulab or of a plugin: {message}; its log is {folder / 'rank0.log'}")
    return BY_CODE.get(code, ErulabError)(redacted_text(message))


def _last_message(folder: Path) -> str:
    """Returns what a job of a sweep said when it ended."""
    try:
        return str(read_run(folder).ended.get("message") or "nothing was said")
    except DataError:
        return f"it did not start; {folder} is in use, or cannot be written"


def _frame(runs: Sequence[RunResult], rows: str) -> pandas.DataFrame:
    return pandas_frame(_chosen_frame(runs, rows))


def _chosen_frame(runs: Sequence[RunResult], rows: str) -> Frame:
    if rows not in FRAMES:
        raise ConfigError(f"{rows!r}: no such rows of a frame{did_you_mean(rows, FRAMES)}; known: {', '.join(FRAMES)}")
    return FRAMES[rows](runs)


def _refuse_search(overrides: Sequence[str]) -> None:
    search = next((one for one in overrides if one.lstrip("+").startswith(NOT_A_GRID)), None)
    if search is not None:
        raise ConfigError(f"{search}: a search has no list of jobs; type python -m erulab.run -m {search}")
