"""A search on disk, that several processes share: who runs which trial, and what came out."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from erulab.errors import IntegrityFault
from erulab.rundir import make_folder
from erulab.tuning.options import SamplerName
from erulab.tuning.samplers import make_sampler
from erulab.tuning.space import Space

JOURNAL = "journal.log"
# Attributes of a trial, which a dashboard shows beside its parameters.
TYPED, SAME = "typed", "same_as"


@dataclass
class Taken:
    """A trial that this process runs; nobody else does as long as its lock is held."""

    number: int
    typed: list[str]  # its settings, as overrides
    lock: int  # file descriptor


class Search:
    """Trials in an Optuna study with a journal on disk.

    The journal says which trials there are; a lock per trial says which process works on it. The operating system drops
    the locks of a process that dies, so its trials are taken over, and no trial is lost or run twice.
    """

    def __init__(self, folder: Path, name: str, space: Space, sampler: SamplerName, seed: int, goals: int = 1) -> None:
        """
        Args:
            folder: where journal and locks are; several searches may share it.
            name: of the search in the journal.
            goals: how many numbers are minimised.
        Raises:
            EnvironmentFault: the folder cannot be made or written.
            IntegrityFault: the journal is damaged.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.folder, self.name, self._space = folder, name, space
        self._sampler, self._seed = sampler, seed
        make_folder(folder / "locks", "folder of the search", "output")
        with self._alone():
            self._mend_journal()
            try:
                storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
                self._study = optuna.create_study(
                    storage=storage, study_name=name, directions=["minimize"] * goals, load_if_exists=True
                )
            except (ValueError, KeyError) as error:
                raise IntegrityFault(
                    f"{folder / JOURNAL} is damaged ({error}); delete it and type the same command: finished trials "
                    "are read from their run folders"
                ) from None

    @property
    def trials(self) -> list[FrozenTrial]:
        """All trials so far, by number."""
        return self._study.get_trials(deepcopy=False)

    def take(self, count: int, most: int) -> list[Taken]:
        """Takes trials to run: those of processes that died first, then new ones.

        Args:
            count: at most this many.
            most: the number of trials of the whole search.
        """
        taken: list[Taken] = []
        with self._alone():
            for trial in self.trials:
                if trial.state is TrialState.RUNNING and len(taken) < count:
                    taken += self._take_over(trial)
            while len(taken) < count and len(self.trials) < most:
                taken += self._draw()
        return taken

    def others(self) -> int:
        """Returns the number of trials that other processes work on."""
        return sum(trial.state is TrialState.RUNNING for trial in self.trials)

    def tell(self, taken: Taken, values: Sequence[float] | None, notes: Mapping[str, Any] | None = None) -> None:
        """Records the outcome of a trial, and gives it back.

        Args:
            values: the numbers that are minimised; None: the trial failed.
            notes: attributes to keep with it.
        """
        with self._alone():
            trial = self.trials[taken.number]
            for name, value in (notes or {}).items():
                self._note(trial, name, value)
            self._finish(taken.number, values)
        self.give_back(taken)

    def give_back(self, taken: Taken) -> None:
        """Lets other processes take a trial that has no outcome yet."""
        os.close(taken.lock)

    def draw_all(self, count: int) -> list[list[str]]:
        """Draws trials until there are `count`, without taking any; returns the settings of each.

        For searches whose processes share runs rather than trials: whoever finishes one records it.
        """
        with self._alone():
            while len(self.trials) < count:
                self._ask()
            for trial in self.trials[:count]:
                if TYPED not in trial.user_attrs:  # its process died before the settings were written
                    self._suggest_again(trial)
            return [trial.user_attrs[TYPED] for trial in self.trials[:count]]

    def report(self, number: int, step: int, value: float, notes: Mapping[str, Any]) -> None:
        """Records what a trial has reached after a round, unless another process has done so.

        Args:
            number: of the trial.
            step: of the round, from 0.
            value: the number that is minimised.
        """
        with self._alone():
            trial = self.trials[number]
            if trial.state is not TrialState.RUNNING or step in trial.intermediate_values:
                return
            Trial(self._study, trial._trial_id).report(value, step)
            for name, noted in notes.items():
                self._note(trial, name, noted)

    def finish(self, number: int, value: float | None, *, pruned: bool = False) -> None:
        """Ends a trial, unless another process has done so.

        Args:
            value: the number that is minimised; None: the trial failed.
            pruned: it did not go on to the last round.
        """
        with self._alone():
            if self.trials[number].state is not TrialState.RUNNING:
                return
            if pruned:
                self._study.tell(number, state=TrialState.PRUNED)
            else:
                self._finish(number, None if value is None else [value])

    def _draw(self) -> list[Taken]:
        trial = self._ask()
        return self._claim(trial.number, self.trials[trial.number].user_attrs[TYPED])

    def _ask(self) -> Trial:
        self._study.sampler = self._sampler_of(len(self.trials))
        trial = self._study.ask()
        self._suggest(trial)
        return trial

    def _suggest_again(self, trial: FrozenTrial) -> list[str]:
        self._study.sampler = self._sampler_of(trial.number)
        return self._suggest(Trial(self._study, trial._trial_id))

    def _sampler_of(self, number: int) -> BaseSampler:
        return make_sampler(self._sampler, self._space, self._seed, number)

    def _take_over(self, trial: FrozenTrial) -> list[Taken]:
        """Takes a trial whose process died, or that waited for the outcome of one with the same settings."""
        lock = self._try_lock(trial.number)
        if lock is None:
            return []
        typed = trial.user_attrs.get(TYPED)
        if typed is None:  # its process died before the settings were written
            typed = self._suggest_again(trial)
        os.close(lock)
        return self._claim(trial.number, typed)

    def _suggest(self, trial: Trial) -> list[str]:
        typed = [f"{key}={entry.suggest(trial, key)}" for key, entry in self._space.items()]
        trial.set_user_attr(TYPED, typed)
        return typed

    def _claim(self, number: int, typed: list[str]) -> list[Taken]:
        """Takes a trial, unless an earlier one has the same settings: its outcome then counts for both."""
        trials = self.trials
        same = next((one for one in trials[:number] if one.user_attrs.get(TYPED) == typed), None)
        if same is not None:
            if same.state is not TrialState.RUNNING:
                for name, value in same.user_attrs.items():
                    self._note(trials[number], name, value)
                self._note(trials[number], SAME, same.number)
                self._finish(number, same.values if same.state is TrialState.COMPLETE else None)
            return []
        lock = self._try_lock(number)
        return [] if lock is None else [Taken(number, typed, lock)]

    def _finish(self, number: int, values: Sequence[float] | None) -> None:
        if values is None:
            self._study.tell(number, state=TrialState.FAIL)
        else:
            self._study.tell(number, list(values))

    def _note(self, trial: FrozenTrial, name: str, value: Any) -> None:
        self._study._storage.set_trial_user_attr(trial._trial_id, name, value)

    def _try_lock(self, number: int) -> int | None:
        handle = os.open(self.folder / "locks" / f"{self.name}-{number}", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle

    def _mend_journal(self) -> None:
        """Removes the last line if a process was killed while it wrote it: nobody has read it."""
        file = self.folder / JOURNAL
        if not file.is_file():
            return
        content = file.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            os.truncate(file, whole)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Waits until no other process reads or writes the search."""
        handle = os.open(self.folder / "locks" / "all", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
