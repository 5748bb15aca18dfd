"""A run, top to bottom: target -> oracle -> unlearn -> evaluate -> attack -> report.

Every stage finds what it needs by content in the cache, so a run that was killed continues, and a finished one with
another attack only adds rows.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from erulab.costs import account
from erulab.costs.account import Costs
from erulab.errors import DataError
from erulab.evaluation.row_score import RowScore
from erulab.methods.base import Trains
from erulab.options import SavedModel, Stage
from erulab.registry import methods
from erulab.reporting import write_report
from erulab.rundir import RunDir
from erulab.stages import attack, evaluate, learn, unlearn
from erulab.stages.cache import Product
from erulab.stages.context import Context, ModelRef
from erulab.stages.unlearn import UNLEARNED, Step

log = logging.getLogger(__name__)


class Pipeline:
    """One run's stages, in order. Files of the run folder are written by rank 0, each as soon as it is known."""

    def __init__(self, context: Context, rundir: RunDir) -> None:
        self._context, self._rundir = context, rundir
        # What an earlier run with other stages or attacks left here stays.
        self._stages: dict[str, dict[str, Any]] = (
            rundir.read_json(rundir.stages_json) if rundir.stages_json.is_file() else {}
        )
        # Not a stage, but what the report must say of the rows that every stage works on.
        beside = [f"{part.benchmark.name}: {note}" for part in context.beside for note in part.benchmark.notes]
        self._stages["data"] = {"notes": [*context.benchmark.notes, *beside], "done": True}
        self._wanted = context.config.stages
        self._trainings: dict[str, Costs] = {}  # of each model that erulab trained

    def run(self) -> None:
        attacked = Stage.attack in self._wanted and bool(self._context.config.attack)
        self._check(attacked)
        target = self._learned("target", Stage.target)
        oracle = self._learned("oracle", Stage.oracle)
        if attacked:  # before hours of unlearning
            self._needed("oracle", oracle)
        unlearned = self._unlearned(target, oracle)
        refs = {"target": target, **unlearned, "oracle": oracle}
        known = {role: ref for role, ref in refs.items() if ref is not None}
        evaluated = self._evaluate(known) if Stage.evaluate in self._wanted else None
        if attacked:
            self._attack(known, evaluated)
        if Stage.report in self._wanted:
            self._report()

    def _check(self, attacked: bool) -> None:
        """Finds what would stop a later stage, before hours of learning."""
        self._stages["data"]["notes"] += evaluate.check(self._context)
        config, wanted = self._context.config, self._wanted
        unlearns = Stage.unlearn in wanted and config.model.unlearned is None
        retrains = methods[config.method.name].factory.trains is Trains.retrain and unlearns
        if config.model.target is None and (Stage.target in wanted or unlearns):
            learn.check(self._context, "target")
        if config.model.oracle is None and (Stage.oracle in wanted or attacked or retrains):
            learn.check(self._context, "oracle")
        if unlearns:
            unlearn.check(self._context)
        if attacked:
            attack.check(self._context)

    def _learned(self, part: str, stage: Stage) -> ModelRef | None:
        config = self._context.config
        given = config.model.target if part == "target" else config.model.oracle
        if given is not None:
            return self._context.given(given)
        if stage in self._wanted:
            product = learn.learn(self._context, part)
            self._finished(part, [product])
        elif config.learns_nothing:  # what happens to lie in the cache is no part of the command
            return None
        else:
            found = learn.find(self._context, part)
            if found is None:
                return None
            product = found
        self._trainings[part] = product.costs
        return ModelRef(product.key, str(product.folder / "model"))

    def _unlearned(self, target: ModelRef | None, oracle: ModelRef | None) -> dict[str, ModelRef]:
        """The unlearned model by its role; after several requests, the model after each."""
        context = self._context
        if context.config.model.unlearned is not None:
            return {UNLEARNED: context.given(context.config.model.unlearned)}
        trains = methods[context.config.method.name].factory.trains
        ref = {Trains.retrain: oracle, Trains.nothing: target}.get(trains)
        if trains is Trains.retrain and "oracle" in self._trainings:
            self._trainings[UNLEARNED] = self._trainings["oracle"]
        refs = {} if ref is None else {UNLEARNED: ref}
        if Stage.unlearn not in self._wanted:
            if context.config.learns_nothing:
                return refs
            # What an earlier run unlearned is still scored and attacked, like its target.
            return refs or (self._steps(unlearn.find(context, target)) if target is not None else {})
        if not refs:
            if trains is Trains.retrain:
                self._needed("oracle", None)
            steps = unlearn.unlearn(context, self._needed("target", target))
            self._finished("unlearn", [step.product for step in steps])
            refs = self._steps(steps)
        saved, last = context.config.artifacts.model, Path(refs[UNLEARNED].path)
        if context.ranks.first and saved is SavedModel.full:
            link_folder(last, self._rundir.model)
        if context.ranks.first and saved is SavedModel.adapter:
            link_folder(last.with_name("adapter"), self._rundir.adapter)
        return refs

    def _steps(self, steps: Sequence[Step]) -> dict[str, ModelRef]:
        self._trainings |= {step.role: step.costs for step in steps}
        return {step.role: step.ref for step in steps}

    def _needed(self, part: str, ref: ModelRef | None) -> ModelRef:
        if ref is None:
            stage = {UNLEARNED: Stage.unlearn.value}.get(part, part)
            judged = "; a checkpoint that is only to be scored is model.unlearned=" if part == "target" else ""
            raise DataError(
                f"no {part} has been learned with these settings; add {stage} to stages, or name one with model.{part}="
                f"{judged}"
            )
        return ref

    def _evaluate(self, refs: dict[str, ModelRef]) -> dict[str, list[RowScore]]:
        if not refs:
            self._needed("target", None)
        rows, products = {}, []
        for role, ref in refs.items():
            self._context.stop.check()
            rows[role], made = evaluate.score_model(self._context, role, ref)
            products += made
        result = evaluate.scores(self._context, rows)
        for role in result.keys() & self._trainings.keys():
            result[role] |= self._trainings[role].of_training()
        if self._context.ranks.first:
            self._rundir.write_json(self._rundir.scores_json, result)
            self._rundir.write_json(self._rundir.samples_json, evaluate.samples(rows, self._context))
        self._context.tracker.summary(result)
        self._finished("evaluate", products)
        return {role: scored[0] for role, scored in rows.items()}

    def _attack(self, refs: dict[str, ModelRef], evaluated: dict[str, list[RowScore]] | None) -> None:
        refs = {role: self._needed(role, refs.get(role)) for role in ("target", UNLEARNED, "oracle")}
        attacked = {role: ref.key for role, ref in refs.items()}
        rows, products = attack.attack(self._context, refs, evaluated)
        if self._context.ranks.first:
            self._rundir.write_json(self._rundir.attacks_json, self._earlier(rows, attacked) + rows)
        self._finished("attack", products, models=attacked)

    def _earlier(self, rows: list[dict[str, Any]], attacked: dict[str, str]) -> list[dict[str, Any]]:
        """Rows of attacks.json that another command left on these very models, but those made anew, and why an attack
        had none before it had some."""
        if not self._rundir.attacks_json.is_file() or self._stages.get("attack", {}).get("models") != attacked:
            return []
        made = [(row["attack"], row["setting"]) for row in rows]
        again = {row["attack"] for row in rows}
        old: list[dict[str, Any]] = self._rundir.read_json(self._rundir.attacks_json)
        return [
            row
            for row in old
            if (row["attack"], row["setting"]) not in made and not (row["attack"] in again and not row["n"])
        ]

    def _report(self) -> None:
        if self._context.ranks.first:
            self._stages["report"] = {"done": True}
            self._rundir.write_json(self._rundir.stages_json, self._stages)
            write_report(self._rundir)

    def _finished(self, stage: str, products: Sequence[Product], **more: Any) -> None:
        costs = account.in_turn(product.costs for product in products)
        log.info("%s: %s, %.1f s", stage, ", ".join(str(p.folder) for p in products), costs.seconds)
        self._stages[stage] = {
            "key": "+".join(p.key for p in products),
            **costs.plain(),
            "from_cache": all(p.from_cache for p in products),
            "done": True,
            **more,
        }
        if self._context.ranks.first:
            self._rundir.write_json(self._rundir.stages_json, self._stages)
        self._context.tracker.summary({"stages": {stage: costs.plain()}})


def link_folder(source: Path, destination: Path) -> None:
    """Hard links of a folder's files, or copies across file systems; replaces what was there, whole or not at all."""
    working = destination.with_name(f".{destination.name}.tmp")
    shutil.rmtree(working, ignore_errors=True)
    working.mkdir(parents=True)
    for file in source.iterdir():
        try:
            os.link(file, working / file.name)
        except OSError:
            shutil.copy2(file, working / file.name)
    shutil.rmtree(destination, ignore_errors=True)
    working.rename(destination)
