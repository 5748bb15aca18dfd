"""Runs each attack in each setting on copies of each model: every repeat is a job, and every job a cached product."""

from __future__ import annotations

import functools
import json
import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from erulab.attacks.base import Inapplicable, Repeat
from erulab.attacks.judging.scoring import utility_suite
from erulab.attacks.judging.trace import AttemptResult, run_attack
from erulab.attacks.sequence import every_options
from erulab.data.rows import Suite
from erulab.errors import ErulabError, NumericFault
from erulab.evaluation.suites import forget_suites
from erulab.faults import machine_fault
from erulab.models.loaded import LoadedModel
from erulab.options import NOT_IN_SCORES
from erulab.registry import attacks
from erulab.reporting.progress import Progress, counting
from erulab.stages.attack_lab import AttackLab
from erulab.stages.attack_plan import AttackPlan, every_scored_suite
from erulab.stages.cache import Cache, Product, key_of
from erulab.stages.context import Context
from erulab.stages.evaluate import measure_code
from erulab.training.loader import ModelRef

log = logging.getLogger(__name__)

VERSION = 4  # part of the cache key: a new number attacks every model again
KIND = "attacked"
TRACE = "trace.json"


@dataclass(frozen=True)
class AttackJob:
    """One repeat of an attack in one setting on one model.

    attack: name of the attack; None scores the model without an attack.
    setting: index among all settings of the run; -1 without an attack.
    """

    attack: str | None
    setting: int
    repeat: int
    model: str


@dataclass(frozen=True)
class JobResults:
    """What jobs gave.

    traces: job -> its attempts.
    failures: job -> why it failed.
    products: the entries of the cache that hold the traces.
    """

    traces: dict[AttackJob, list[AttemptResult]]
    failures: dict[AttackJob, str]
    products: list[Product]


class JobRunner:
    """Runs this rank's share of the jobs whose results are not in the cache."""

    def __init__(self, context: Context, planned: AttackPlan, refs: dict[str, ModelRef]) -> None:
        self._context, self._planned, self._refs = context, planned, refs
        # Each job belongs to one rank, so no other rank waits for its result.
        self._cache: Cache = context.cache.alone()
        self._counted = "jobs" if context.ranks.world == 1 else f"of {context.ranks.world} ranks' jobs"
        self._load: Callable[[str], LoadedModel] = functools.cache(lambda model: context.loader.load(refs[model]))

    def run(self, jobs: Sequence[AttackJob]) -> JobResults:
        ranks, rerun = self._context.ranks, self._context.config.rerun
        keys = {job: self._depends_on(job) for job in jobs}
        missing = [job for job in jobs if rerun or self._cache.find(KIND, keys[job]) is None]
        # All ranks must have looked into the cache before one of them adds to it.
        missing = ranks.gather_objects(missing)[0]
        own = ranks.mine(missing)
        failures = self._run_jobs(own, keys) if own else {}
        failures = {job: why for found in ranks.gather_objects(failures) for job, why in found.items()}
        products, traces = {}, {}
        for job in jobs:
            product = None if job in failures else self._cache.find(KIND, keys[job])
            if product is not None:
                text = (product.folder / TRACE).read_text()
                traces[job] = [AttemptResult.from_json(plain) for plain in json.loads(text)]
                products[product.key] = replace(product, from_cache=job not in missing)
        return JobResults(traces, failures, list(products.values()))

    def count_made(self, jobs: Sequence[AttackJob]) -> int:
        """Counts the jobs whose results the cache has."""
        return sum(self._cache.find(KIND, self._depends_on(job)) is not None for job in jobs)

    def _run_jobs(self, jobs: Sequence[AttackJob], keys: Mapping[AttackJob, dict[str, Any]]) -> dict[AttackJob, str]:
        """Runs this rank's jobs and stores their results; returns why jobs failed, without those that did not."""
        failures: dict[AttackJob, str] = {}
        names = ", ".join(dict.fromkeys(job.attack or "no attack" for job in jobs))
        opening = f"attacking target, unlearned model and oracle: {names}"
        with counting("attacks", opening, enabled=self._context.ranks.first) as bar:
            for number, job in enumerate(jobs):
                bar.count(self._counted, number, len(jobs))
                bar.note(_job_title(job))
                failure = self._run_job(job, keys[job], bar)
                if failure:
                    failures[job] = failure
            bar.count(self._counted, len(jobs), len(jobs))
        return failures

    def _run_job(self, job: AttackJob, depends_on: dict[str, Any], bar: Progress) -> str:
        """Runs one job and stores its result; `bar` shows how far it is.

        Returns:
            Why it failed; "" if it did not.
        """
        context = self._context

        def make(folder: Path) -> None:
            subject = self._load(job.model)
            # Another process may train the target again, but it never stores other weights under the same key.
            repeat = Repeat(context.config.seed, job.repeat)
            lab = AttackLab(context, repeat, lambda: self._load("target"), functools.partial(_note_progress, bar, job))
            (folder / TRACE).write_text(json.dumps([one.to_json() for one in self._attempt_results(job, subject, lab)]))

        try:
            self._cache.produce(KIND, depends_on, make, rerun=context.config.rerun)
        except (NumericFault, Inapplicable) as fault:
            return f"failed on the {job.model}: {fault}"
        except ErulabError:
            raise
        except Exception as fault:
            if machine_fault(fault) is not None:
                # A full disk or too little memory says nothing about the attack: the run ends, and tries it again.
                raise
            log.warning("%s failed: %s", job, traceback.format_exc())
            return f"failed on the {job.model}: {type(fault).__name__}: {fault}"
        return ""

    def _attempt_results(self, job: AttackJob, subject: LoadedModel, lab: AttackLab) -> list[AttemptResult]:
        utility = utility_suite(lab.benchmark, self._context.config.evaluation)
        if job.attack is None:
            suites = [*every_scored_suite(self._planned, self._context), utility]
            return [AttemptResult({}, lab.score(subject, suites), None, 0, 0.0, 0.0)]
        name, setting = self._planned.settings[job.setting]
        return run_attack(self._planned.built[name], subject, setting, lab, utility, self._context.ledger)

    def _depends_on(self, job: AttackJob) -> dict[str, Any]:
        context, config, benchmark = self._context, self._context.config, self._context.data.selected
        evaluation = {
            k: v for k, v in asdict(config.evaluation).items() if k not in (*NOT_IN_SCORES, "compat", "generator")
        }
        common = {
            "stage": "attack",
            "version": VERSION,
            "model": self._refs[job.model].key,
            "seed": config.seed,
            "chat": context.chat.identity(),
            "data": context.data.identity,
            "evaluation": evaluation,
            **measure_code((*forget_suites(benchmark), utility_suite(benchmark, config.evaluation))),
        }
        if job.attack is None:
            return {**common, "attack": None, "suites": _row_hashes(every_scored_suite(self._planned, context))}
        options, built = config.attack[job.attack], self._planned.built[job.attack]
        # The code of a user's own attack, which can be a step of a sequence too; "" for erulab's attacks.
        code = "".join(attacks[one.name].code for one in every_options({job.attack: options}))
        counted = {k: v for k, v in asdict(options).items() if k not in built.options_told_by_setting}
        return {
            **common,
            "attack": counted,
            "setting": self._planned.settings[job.setting][1],
            "repeat": job.repeat,
            "code": code,
            "precision": config.trainer.precision,
            "target": self._refs["target"].key if built.reads_target else None,
        }


def _job_title(job: AttackJob) -> str:
    model = "unlearned model" if job.model == "unlearned" else job.model
    return f"{job.attack or 'no attack'} on the {model}"


def _note_progress(bar: Progress, job: AttackJob, unit: str, done: int, total: int) -> None:
    bar.note(f"{_job_title(job)}, {done}/{total} {unit}")


def _row_hashes(suites: Sequence[Suite]) -> dict[str, str]:
    return {suite.name: key_of({"rows": [row.id for row in suite.rows]}) for suite in suites}
