"""Attacks on copies of target, unlearned model and oracle: each on each model is a job, kept and never done again."""

from __future__ import annotations

import functools
import json
import logging
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from erulab.attacks.base import Attack, Inapplicable, Repeat, Setting
from erulab.attacks.halves import validation_half
from erulab.attacks.judging import rows as tables
from erulab.attacks.judging.rows import MODELS, Case, Plain
from erulab.attacks.judging.scoring import has_score, union, utility_suite
from erulab.attacks.judging.trace import Tried, carry_out
from erulab.attacks.sequence import every_options
from erulab.data.rows import Suite
from erulab.errors import DataError, ErulabError, NumericFault
from erulab.evaluation.evaluate import RowScore
from erulab.models.loaded import LoadedModel
from erulab.options import NOT_IN_SCORES
from erulab.registry import attacks
from erulab.reporting.console import announce
from erulab.stages.attack_lab import AttackLab
from erulab.stages.cache import Cache, Product, key_of
from erulab.stages.context import Context
from erulab.training.loader import ModelRef

log = logging.getLogger(__name__)

VERSION = 3  # of what this stage computes: a change attacks every model anew
KIND = "attacked"
TRACE = "trace.json"


@dataclass(frozen=True)
class Job:
    """One repeat of an attack in one setting, on one model. No attack: the model as it is."""

    attack: str | None
    setting: int  # among all settings of the run
    repeat: int
    model: str


@dataclass(frozen=True)
class Planned:
    """The attacks of a run, with their settings; and why others of them cannot be run here."""

    built: dict[str, Attack]
    settings: list[tuple[str, Setting]]
    refused: dict[str, str]


def attack(
    context: Context, refs: dict[str, ModelRef], evaluated: dict[str, list[RowScore]] | None
) -> tuple[list[dict[str, Any]], list[Product]]:
    """attacks.json's rows: each attack in each setting, by metric; unattacked values are of the same rows.

    Jobs are dealt over the ranks; models are never changed. Of an attack that cannot be run here or that fails there is
    a row that says why, and that is not valid.

    Args:
        evaluated: the models' row scores without an attack, where this run has them.
    """
    planned = plan_attacks(context)
    jobs = [
        Job(name, index, number, model)
        for index, (name, _) in enumerate(planned.settings)
        for number in range(planned.built[name].repeats)
        for model in MODELS
    ]
    if evaluated is None:
        jobs = [Job(None, -1, 0, model) for model in MODELS] + jobs
    done = _Jobs(context, planned, refs).run(jobs)
    benchmark = context.data.selected
    utility = utility_suite(benchmark, context.config.evaluation)
    if evaluated is None:
        plain = {job.model: _plain(done.traces[job][0].rows, utility) for job in jobs if job.attack is None}
    else:
        plain = {model: _plain(evaluated[model], utility) for model in MODELS}
    validation = validation_half(benchmark, context.config.seed)
    found = [tables.refused(name, {}, why) for name, why in planned.refused.items()]
    for index, (name, setting) in enumerate(planned.settings):
        own = [job for job in jobs if job.setting == index]
        failures = dict.fromkeys(done.failures[job] for job in own if job in done.failures)
        if failures:
            found.append(tables.refused(name, setting, "; ".join(failures)))
            continue
        traces = {model: [done.traces[job] for job in own if job.model == model] for model in MODELS}
        scored = union(_scored(planned, context, name, setting))
        try:
            alike, kind = planned.built[name].alike, context.config.attack[name].name
            case = Case(name, kind, setting, scored, traces, alike)
            found += tables.rows_of(case, plain, validation)
        except DataError as error:
            found.append(tables.refused(name, setting, f"not judged: {error}"))
    return found, done.products


@dataclass(frozen=True)
class _Done:
    traces: dict[Job, list[Tried]]
    failures: dict[Job, str]
    products: list[Product]


class _Jobs:
    """Runs jobs, this rank its share of those that nobody has done before."""

    def __init__(self, context: Context, planned: Planned, refs: dict[str, ModelRef]) -> None:
        self._context, self._planned, self._refs = context, planned, refs
        # A job is one rank's alone: no other rank waits for it.
        self._cache: Cache = context.cache.alone()
        self._load: Callable[[str], LoadedModel] = functools.cache(lambda model: context.loader.load(refs[model]))

    def run(self, jobs: Sequence[Job]) -> _Done:
        ranks, rerun = self._context.ranks, self._context.config.rerun
        keys = {job: self._depends_on(job) for job in jobs}
        missing = [job for job in jobs if rerun or self._cache.find(KIND, keys[job]) is None]
        # All ranks must have looked before one of them makes something.
        missing = ranks.gather_objects(missing)[0]
        failures: dict[Job, str] = {}
        made: set[str | None] = set()
        for job in ranks.mine(missing):
            self._announce(job, made)
            failure = self._do(job, keys[job])
            if failure:
                failures[job] = failure
        failures = {job: why for found in ranks.gather_objects(failures) for job, why in found.items()}
        products, traces = {}, {}
        for job in jobs:
            product = None if job in failures else self._cache.find(KIND, keys[job])
            if product is not None:
                text = (product.folder / TRACE).read_text()
                traces[job] = [Tried.from_json(plain) for plain in json.loads(text)]
                products[product.key] = replace(product, from_cache=job not in missing)
        return _Done(traces, failures, list(products.values()))

    def _do(self, job: Job, depends_on: dict[str, Any]) -> str:
        """Why it failed; "" if it did not."""
        context = self._context

        def make(folder: Path) -> None:
            subject = self._load(job.model)
            # Another process may make the target anew in its cache, but never other weights under one key.
            lab = AttackLab(context, Repeat(context.config.seed, job.repeat), lambda: self._load("target"))
            (folder / TRACE).write_text(json.dumps([one.to_json() for one in self._tried(job, subject, lab)]))

        try:
            self._cache.produce(KIND, depends_on, make, rerun=context.config.rerun)
        except (NumericFault, Inapplicable) as fault:
            return f"failed on the {job.model}: {fault}"
        except ErulabError:
            raise
        except Exception as fault:
            log.warning("%s failed: %s", job, traceback.format_exc())
            return f"failed on the {job.model}: {type(fault).__name__}: {fault}"
        return ""

    def _tried(self, job: Job, subject: LoadedModel, lab: AttackLab) -> list[Tried]:
        utility = utility_suite(lab.benchmark, self._context.config.evaluation)
        if job.attack is None:
            suites = [*_forget(self._planned, self._context), utility]
            return [Tried({}, lab.score(subject, suites), None, 0, 0.0, 0.0)]
        name, setting = self._planned.settings[job.setting]
        return carry_out(self._planned.built[name], subject, setting, lab, utility, self._context.ledger)

    def _announce(self, job: Job, made: set[str | None]) -> None:
        if job.attack is not None and job.attack not in made and self._context.ranks.first:
            announce(f"attacking target, unlearned model and oracle: {job.attack}")
        made.add(job.attack)

    def _depends_on(self, job: Job) -> dict[str, Any]:
        context, config = self._context, self._context.config
        evaluation = {k: v for k, v in asdict(config.evaluation).items() if k not in (*NOT_IN_SCORES, "compat")}
        common = {
            "stage": "attack",
            "version": VERSION,
            "model": self._refs[job.model].key,
            "seed": config.seed,
            "chat": context.chat.identity(),
            "data": context.data.identity,
            "evaluation": evaluation,
        }
        if job.attack is None:
            return {**common, "attack": None, "suites": _names(_forget(self._planned, context))}
        options, built = config.attack[job.attack], self._planned.built[job.attack]
        # Of a user's own plugin, which a sequence may hold too.
        code = "".join(attacks[one.name].code for one in every_options({job.attack: options}))
        counted = {k: v for k, v in asdict(options).items() if k not in built.spans}
        return {
            **common,
            "attack": counted,
            "setting": self._planned.settings[job.setting][1],
            "repeat": job.repeat,
            "code": code,
            "precision": config.trainer.precision,
            "target": self._refs["target"].key if built.reads_target else None,
        }


def plan_attacks(context: Context) -> Planned:
    """Builds the attacks of a run with their settings.

    Raises:
        DataError: an attack cannot be run as its options say, none can be run here, or it could not be judged.
    """
    config, benchmark = context.config, context.data.selected
    utility_suite(benchmark, config.evaluation)
    built: dict[str, Attack] = {name: attacks.build(options) for name, options in config.attack.items()}
    settings: list[tuple[str, Setting]] = []
    refused: dict[str, str] = {}
    for name, one in built.items():
        try:
            settings += [(name, setting) for setting in one.settings(benchmark, config.seed)]
        except Inapplicable as why:
            if len(built) == 1:
                raise
            refused[name] = f"not run: {why}"
    if not settings:
        raise DataError("; ".join(f"attack={name} is {why}" for name, why in refused.items()))
    planned = Planned(built, settings, refused)
    for name, setting in settings:
        suites = union(_scored(planned, context, name, setting))
        scored = any(suite.rows and has_score(suite, config.evaluation) for suite in suites)
        if not (scored or built[name].own_figures):
            raise DataError(
                f"attack={name} is judged by log-odds, probability or generated answers of forget rows, and no "
                "suite that is measured has one; see evaluation.suites and evaluation.generate, or type attack=none"
            )
    return planned


def _scored(planned: Planned, context: Context, name: str, setting: Setting) -> list[tuple[Suite, ...]]:
    """The suites of each repeat of a setting."""
    one, config = planned.built[name], context.config
    return [one.scored(setting, context.data.selected, Repeat(config.seed, i)) for i in range(one.repeats)]


def _forget(planned: Planned, context: Context) -> list[Suite]:
    """Every forget row that some setting is scored on."""
    return union([suites for name, setting in planned.settings for suites in _scored(planned, context, name, setting)])


def _names(suites: Sequence[Suite]) -> dict[str, str]:
    return {suite.name: key_of({"rows": [row.id for row in suite.rows]}) for suite in suites}


def _plain(rows: Sequence[RowScore], utility: Suite) -> Plain:
    ids = {row.id for row in utility.rows}
    return Plain(
        [row for row in rows if row.suite != utility.name],
        [row for row in rows if row.suite == utility.name and row.id in ids],
    )
