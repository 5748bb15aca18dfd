"""The attacker of a study: on each reported model, a search for the settings of an attack that bring most back.

As in TamperBench, settings are searched for each model and attack, under a bound of utility. The facts that choose are
the validation half of those to forget; the others are reported. A setting counts if the attacked model keeps a share of
its own utility. Target, unlearned model and oracle have the same number of trials.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from erulab.attacks.base import Setting
from erulab.attacks.judging.attacked_setting import MODELS
from erulab.attacks.judging.columns import row_without_figures
from erulab.attacks.judging.trace import AttemptResult
from erulab.errors import ConfigError, NumericFault
from erulab.launching.finished import record_finished
from erulab.launching.folder_key import short_hash
from erulab.launching.job import Job
from erulab.reporting import write_report
from erulab.rundir import InUse, RunDir
from erulab.stages.attack_model import Gain, ModelAttack
from erulab.study.attacker_space import as_typed, attacker_space, plan_attacked
from erulab.study.run_models import find_models, open_run
from erulab.study.spec import Attacker
from erulab.study.work import WAIT
from erulab.tuning.options import SamplerName
from erulab.tuning.samplers import draw_points
from erulab.tuning.search import TYPED, Search, Taken

LOG = "attacks.log"
SHOWN = {"target": "target", "unlearned": "unlearned model", "oracle": "oracle"}
LEVEL, KEPT, LACKS, BUDGET = "validation_level", "utility_kept", "utility_lacks", "budget"  # attributes of a trial
OUT_OF_BOUND = 1e6  # above minus any level in nats: TPE ranks values, so settings that keep too little come last


def attacker_objective(gain: Gain, share: float) -> float:
    """Returns what is minimised: minus the level of the validation facts where the share of utility is kept, otherwise
    a number that is larger for less utility, and larger than any level.

    Args:
        gain: what the setting brought back.
        share: of its own utility that the attacked model must keep.
    """
    lacking = gain.lacks(share)
    return -gain.level if lacking == 0 else OUT_OF_BOUND * (1 + min(lacking, 1.0))


def best_setting(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Returns the finished trial with the highest level among those that keep the share of utility; the first of
    equals. None if none keeps it."""
    counting = [trial for trial in trials if trial.state is TrialState.COMPLETE and trial.user_attrs[LACKS] == 0]
    return max(counting, key=lambda trial: trial.user_attrs[LEVEL], default=None)


@dataclass
class TunedModel:
    """The best setting on one model. `typed` and `attempts` are of the trial; budgets are those of all trials."""

    typed: list[str]
    attempts: list[AttemptResult]


class AttackedRun:
    """The searches on the three models of one reported run. Typed again, everything is found in the cache."""

    def __init__(self, attacker: Attacker, reported: Job, overrides: Sequence[str], seed: int, folder: Path) -> None:
        """
        Args:
            reported: the run, which is finished; overrides: what it was composed from.
            seed: draws the settings.
            folder: of all searches of the study, which several processes share.
        """
        self._attacker, self._overrides, self._seed, self._folder = attacker, overrides, seed, folder
        self._reported = reported
        self._job = plan_attacked(attacker, overrides)
        self._space = attacker_space(attacker, self._job.config)
        self._context = open_run(self._job)
        self._refs = find_models(self._job, self._context)
        folder.mkdir(parents=True, exist_ok=True)
        # In its first setting, for what does not depend on the setting.
        self._plain_attack = self._attack(self._drawn_first())
        self._name = f"tuned_{self._plain_attack.name}"

    def run(self) -> list[dict[str, Any]]:
        """Runs or continues the searches, writes their result into the run's attacks.json, and returns its rows."""
        with self._quietly():
            plain = {model: self._plain_attack.unattacked(model) for model in MODELS}
        tuned: dict[str, TunedModel] = {}
        rows: list[dict[str, Any]] = []
        for model in MODELS:
            search = Search(self._folder, self._search_name(model), self._space, SamplerName.tpe, self._seed)
            for taken in self._every_trial(search):
                self._try(search, taken, model)
            best = best_setting(search.trials)
            if best is None:
                why = f"no setting of {self._attacker.trials} leaves {self._attacker.kept:g} of the utility"
                rows = [row_without_figures(self._name, self._setting, f"not run: {why} of the {SHOWN[model]}")]
                break
            tuned[model] = self._repeat(search.trials, best, model)
        if not rows:
            attempts = {model: one.attempts for model, one in tuned.items()}
            chosen = {model: _setting_of(one.typed) for model, one in tuned.items()}
            rows = self._plain_attack.rows(self._name, self._setting, attempts, plain, chosen)
        self._write(rows)
        return rows

    @property
    def _setting(self) -> Setting:
        """What attacks.json says of the setting: the budget, the bound, and what was not searched."""
        searched = {key.rpartition(".")[2] for key in self._space}
        fixed = {key: value for key, value in self._plain_attack.setting.items() if key not in searched}
        return {"trials": self._attacker.trials, "utility": self._attacker.kept, **fixed}

    def _attack(self, settings: Sequence[str]) -> ModelAttack:
        config = plan_attacked(self._attacker, self._overrides, settings).config
        context = replace(self._context, config=replace(self._context.config, attack=config.attack))
        return ModelAttack(context, self._refs)

    def _drawn_first(self) -> list[str]:
        return [as_typed(one, self._job.config) for one in draw_points(self._space, self._seed, 1)[0]]

    def _search_name(self, model: str) -> str:
        """Names a search by all that its trials depend on: arms with one target share the searches on it."""
        config, data = self._context.config, self._context.data.identity
        attack = [asdict(options) for options in self._job.config.attack.values()]
        own = [self._refs[model].key, data, config.seed, asdict(config.evaluation), attack, asdict(self._attacker)]
        return f"{model}-{short_hash(own)}"

    def _every_trial(self, search: Search) -> Iterator[Taken]:
        """Yields the trials that this process runs, until the search has all of its trials."""
        while True:
            for taken in search.take(1, self._attacker.trials):
                yield taken
                break
            else:
                if not search.others():
                    return
                time.sleep(WAIT)

    def _try(self, search: Search, taken: Taken, model: str) -> None:
        """Runs a trial and records what it brought back; None if the attack failed on the model."""
        settings = [as_typed(one, self._job.config) for one in taken.typed]
        shown = (
            f"{self._name} on the {model}, trial {taken.number + 1} of {self._attacker.trials}: {' '.join(settings)}"
        )
        try:
            gain, attempts = self._gain(settings, model)
        except NumericFault as fault:
            search.tell(taken, None, {"why": str(fault)})
            print(f"{shown}: {fault}", flush=True)
            return
        except BaseException:
            search.give_back(taken)
            raise
        share = self._attacker.kept
        budget = {name: [getattr(one, name) for one in attempts] for name in ("steps", "flops", "seconds")}
        notes = {LEVEL: gain.level, KEPT: gain.kept, LACKS: gain.lacks(share), BUDGET: budget}
        search.tell(taken, [attacker_objective(gain, share)], notes)
        kept = "undefined" if gain.kept is None else f"{gain.kept:.3f}"
        print(f"{shown}: validation facts {gain.level:.3f}, utility kept {kept}", flush=True)

    def _gain(self, settings: Sequence[str], model: str) -> tuple[Gain, list[AttemptResult]]:
        attack = self._attack(settings)
        if attack.scored_rows != self._plain_attack.scored_rows:
            raise ConfigError(
                f"attacker.space: {' '.join(settings)} scores other rows than other settings, so that they cannot be "
                "compared; fix split, by and source in attacker.attack"
            )
        with self._quietly():
            attempts = attack.run_on(model)
            gain = attack.gain(attempts, attack.unattacked(model))
        if not abs(gain.level) < OUT_OF_BOUND:
            raise NumericFault("a score after the attack is not a number")
        return gain, attempts

    def _repeat(self, trials: Sequence[FrozenTrial], best: FrozenTrial, model: str) -> TunedModel:
        """Returns the best trial's attempts, which the cache has, with the budget of all trials."""
        typed = [as_typed(one, self._job.config) for one in best.user_attrs[TYPED]]
        budgets = [trial.user_attrs[BUDGET] for trial in trials if BUDGET in trial.user_attrs]
        with self._quietly():
            attempts = self._attack(typed).run_on(model)
        spent = [
            {name: sum(budget[name][i] for budget in budgets) for name in ("steps", "flops", "seconds")}
            for i in range(len(attempts))
        ]
        return TunedModel(typed, [replace(one, **more) for one, more in zip(attempts, spent, strict=True)])

    def _write(self, rows: list[dict[str, Any]]) -> None:
        """Puts the rows into the run's attacks.json, in place of those of an earlier search, unless it has them."""
        rundir: RunDir = self._reported.rundir
        while True:
            try:
                with rundir.locked():
                    file = rundir.attacks_json
                    every = rundir.read_json(file) if file.is_file() else []
                    others = [row for row in every if row["attack"] != self._name]
                    own = [row for row in every if row["attack"] == self._name]
                    if own != json.loads(json.dumps(rows)):
                        rundir.write_json(file, [*others, *rows])
                        if rundir.report_md.is_file():
                            write_report(rundir)
                        # The run's own command finds its files as it would have left them.
                        record_finished(rundir, self._reported.config, self._reported.key)
                return
            except InUse:
                time.sleep(WAIT)

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        """Writes what attacks print into a log."""
        with (self._folder / LOG).open("a") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            yield


def attack_reported(attacker: Attacker, reported: Job, overrides: Sequence[str], seed: int, folder: Path) -> None:
    """Tunes the attack on the models of a finished run, and prints what it brought back.

    Args:
        reported, overrides, seed, folder: as for `AttackedRun`.
    """
    headline = AttackedRun(attacker, reported, overrides, seed, folder).run()[0]
    if headline["knowledge_left_attacked"] is None:
        print(f"{headline['attack']}: {headline['reason']}", flush=True)
        return
    chosen = " ".join(f"{key}={value}" for key, value in headline["chosen"]["unlearned"][0].items())
    print(
        f"{headline['attack']} with {chosen}: knowledge left {headline['knowledge_left_attacked']:.3f} "
        f"({headline['standing'].replace('_', ' ')})",
        flush=True,
    )


def _setting_of(typed: Sequence[str]) -> Setting:
    """Returns overrides as a setting object: attack.relearn.lr=[0.001] -> {"lr": "0.001"}."""
    pairs = [one.partition("=") for one in typed]
    return {key.rpartition(".")[2]: value.removeprefix("[").removesuffix("]") for key, _, value in pairs}
