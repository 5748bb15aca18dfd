"""A run, top to bottom: target -> oracle -> unlearn -> evaluate -> attack -> report.

Every stage finds what it needs by content in the cache, so a run that was killed continues, and a finished one with
another attack only adds rows.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from erulab.checksums import check_model
from erulab.costs import account
from erulab.costs.account import Costs
from erulab.costs.ledger import Spent
from erulab.errors import DataError
from erulab.evaluation.row_score import RowScore
from erulab.methods.base import StandIn
from erulab.options import SavedModel, Stage
from erulab.registry import methods
from erulab.reporting import write_report
from erulab.roles import ORACLE
from erulab.rundir import RunDir
from erulab.stages import attack, cards, checks, learn, unlearn
from erulab.stages.alternatives import shown_alternatives
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.stages.halves import notes_on_half
from erulab.stages.kept_texts import kept_texts
from erulab.stages.linking import link_folder
from erulab.stages.measuring import measure_models
from erulab.stages.stage_lines import StageLines
from erulab.stages.unlearn import UNLEARNED, UnlearnedRequest
from erulab.training.loader import ModelRef

log = logging.getLogger(__name__)


class Pipeline:
    """One run's stages, in order. Files of the run folder are written by rank 0, each as soon as it is known."""

    def __init__(self, context: Context, rundir: RunDir) -> None:
        self._context, self._rundir = context, rundir
        # Entries of an earlier run with other stages or attacks are kept.
        self._stages: dict[str, dict[str, Any]] = (
            rundir.read_json(rundir.stages_json) if rundir.stages_json.is_file() else {}
        )
        self._wanted = context.config.stages
        self._lines = StageLines(context, rundir.path)
        self._trainings: dict[str, Costs] = {}  # role -> costs, of each model that erulab trained
        self._requests: Sequence[UnlearnedRequest] = ()
        self._kept: dict[str, Mapping[str, Any]] = {}  # role -> which step its model is of, for scores.json
        self._booked, self._stage_began = Spent(), time.perf_counter()  # this process's work in earlier stages

    def run(self) -> None:
        """Runs the stages that `stages` names, each unless the cache has its product.

        Raises:
            ErulabError: one line for the user, with an exit code.
        """
        context = self._context
        checks.run_stage_checks(context)
        self._note_data()
        model = context.config.model
        target = self._learned_models(Stage.target, ["target"], [] if model.target is None else [model.target])
        oracles = self._learned_models(Stage.oracle, context.config.oracles, model.oracles)
        # The first oracle is that of attacks and of the choice of a step; further ones measure how oracles differ.
        oracle = oracles.get(ORACLE)
        if context.attacks:  # before hours of unlearning
            self._require("oracle", oracle)
        known = {**target, **self._unlearned_models(target.get("target"), oracle), **oracles}
        evaluated = self._evaluate(known) if Stage.evaluate in self._wanted else None
        if context.attacks:
            self._attack(known, evaluated)
        if Stage.report in self._wanted and context.ranks.first:
            self._lines.begin(Stage.report)
            self._stages["report"] = {"done": True}
            self._rundir.write_json(self._rundir.stages_json, self._stages)
            write_report(self._rundir)
            self._audit(known)
        if context.unlearns and context.ranks.first:
            cards.write_card(self._rundir, context.config.artifacts.model)
        self._lines.finish()

    def _audit(self, models: Mapping[str, ModelRef]) -> None:
        """Writes the audit of each request that was unlearned, now or by an earlier command."""
        method = methods.build(self._context.config.method)
        retrained = isinstance(method, StandIn) and method.stands_for == ORACLE and UNLEARNED in models
        if (self._requests or retrained) and self._context.config.model.unlearned is None:
            cards.write_audits(self._context, self._rundir, models, self._requests)

    def _note_data(self) -> None:
        """Keeps the notes on the data and on too few steps for the report, as an entry beside those of the stages."""
        context = self._context
        extra = [f"{part.fitted.name}: {note}" for part in context.extra_benchmarks for note in part.fitted.notes]
        found = [*checks.notes_on_end_of_turn(context), *checks.notes_on_unknown_words(context)]
        found += [*checks.notes_on_few_steps(context), *notes_on_half(context)]
        for note in found:
            log.warning("%s", note)
        self._stages["data"] = {"notes": [*context.benchmark.notes, *extra, *found], "done": True}

    def _learned_models(self, stage: Stage, roles: Sequence[str], given: Sequence[str]) -> dict[str, ModelRef]:
        """Returns the target or the oracles by role: given, learned now or in an earlier run; {} if there is none.

        Args:
            given: the folders or hub ids that the user names, one per role; empty: the models are learned.
        Raises:
            DataError: earlier runs learned some of the oracles, and this one is not to learn the others.
        """
        if given:
            return {role: self._given_model(path) for role, path in zip(roles, given, strict=True)}
        if stage in self._wanted:
            self._lines.begin(stage)
            products = [learn.learn(self._context, role) for role in roles]
            self._finish_stage(stage.value, products)
        elif self._context.config.only_given_models:
            return {}  # a model that happens to lie in the cache is no part of the command
        else:
            found = [learn.find_learned(self._context, role) for role in roles]
            products = [product for product in found if product is not None]
            if not products:
                return {}
            if len(products) < len(roles):
                raise DataError(
                    f"{len(products)} of target.oracle_seeds={len(roles)} oracles have been learned with these "
                    "settings; add oracle to stages, or type target.oracle_seeds=1"
                )
        self._trainings |= {role: product.costs for role, product in zip(roles, products, strict=True)}
        return {role: product.model for role, product in zip(roles, products, strict=True)}

    def _given_model(self, path: str) -> ModelRef:
        checks.check_given_model(self._context, path)
        return self._context.loader.given(path)

    def _unlearned_models(self, target: ModelRef | None, oracle: ModelRef | None) -> dict[str, ModelRef]:
        """Returns the unlearned model by its role, "unlearned"; after several requests, the model after each."""
        config = self._context.config
        if config.model.unlearned is not None:
            return {UNLEARNED: self._given_model(config.model.unlearned)}
        method = methods.build(config.method)
        if self._context.unlearns:
            self._lines.begin(Stage.unlearn)
        if isinstance(method, StandIn):
            models = self._taken_as_unlearned(
                method.stands_for, {"target": target, "oracle": oracle}[method.stands_for]
            )
        elif self._context.unlearns:
            if self._context.keeps_best:
                self._require("oracle", oracle)
            done = unlearn.unlearn(self._context, self._require("target", target), oracle)
            self._finish_stage("unlearn", [product for request in done for product in request.products])
            self._show_alternatives(done)
            models = self._add_requests(done)
        else:
            # What an earlier run unlearned is still scored and attacked, like its target.
            found = [] if target is None else unlearn.find_unlearned(self._context, target, oracle)
            models = self._add_requests(found)
        if self._context.unlearns:
            self._link_model(models[UNLEARNED])
        return models

    def _taken_as_unlearned(self, role: str, ref: ModelRef | None) -> dict[str, ModelRef]:
        """Takes the target (method none) or the oracle (method retrain) for the unlearned model."""
        if self._context.unlearns:
            ref = self._require(role, ref)
        if role == "oracle" and role in self._trainings:
            self._trainings[UNLEARNED] = self._trainings[role]
        return {} if ref is None else {UNLEARNED: ref}

    def _add_requests(self, done: Sequence[UnlearnedRequest]) -> dict[str, ModelRef]:
        self._requests = done
        self._trainings |= {request.role: request.costs for request in done}
        self._kept |= {request.role: request.kept for request in done}
        return {request.role: request.ref for request in done}

    def _show_alternatives(self, done: Sequence[UnlearnedRequest]) -> None:
        """Writes the answers that the target gave in place of forgotten ones, as far as the report shows them."""
        count = self._context.config.evaluation.samples
        shown = [
            sample
            for request in done
            if request.alternatives is not None
            for sample in shown_alternatives(request.alternatives, request.forget, count)
        ]
        if shown and self._context.ranks.first:
            artifacts = self._context.config.artifacts
            self._rundir.write_json(self._rundir.alternatives_json, kept_texts(shown, artifacts))

    def _link_model(self, ref: ModelRef) -> None:
        """Puts the unlearned model, or its adapter, into the run folder."""
        saved, folder = self._context.config.artifacts.model, Path(ref.path)
        if self._context.ranks.first:
            check_model(folder.with_name("adapter") if saved is SavedModel.adapter else folder, ref.key)
        if self._context.ranks.first and saved in (SavedModel.full, SavedModel.wandb):
            link_folder(folder, self._rundir.model)
        if self._context.ranks.first and saved is SavedModel.adapter:
            link_folder(folder.with_name("adapter"), self._rundir.adapter)

    def _require(self, role: str, ref: ModelRef | None) -> ModelRef:
        """Returns the model of a role.

        Raises:
            DataError: there is none; says how to get or name one.
        """
        if ref is None:
            raise checks.no_such_model(role)
        return ref

    def _evaluate(self, models: dict[str, ModelRef]) -> dict[str, list[RowScore]]:
        if not models:
            self._require("target", None)
        self._lines.begin(Stage.evaluate)
        measured = measure_models(self._context, models)
        scores = measured.scores
        for role in scores.keys() & self._trainings.keys():
            scores[role] |= {**self._kept.get(role, {}), **self._trainings[role].of_training()}
        if self._context.ranks.first:
            self._rundir.write_json(self._rundir.scores_json, scores)
            self._rundir.write_json(self._rundir.intervals_json, measured.intervals)
            self._rundir.write_json(self._rundir.samples_json, measured.samples)
            if measured.judged is not None:
                self._rundir.write_text(self._rundir.judged_jsonl, measured.judged)
            if measured.depth is not None:
                self._rundir.write_json(self._rundir.uds_json, measured.depth)
            for name, details in measured.external.items():
                self._rundir.write_json(self._rundir.external_json(name), details)
        self._context.tracker.summary(scores)
        self._finish_stage("evaluate", measured.products)
        return measured.rows

    def _attack(self, models: dict[str, ModelRef], evaluated: dict[str, list[RowScore]] | None) -> None:
        models = {role: self._require(role, models.get(role)) for role in ("target", UNLEARNED, "oracle")}
        keys = {role: ref.key for role, ref in models.items()}
        self._lines.begin(Stage.attack)
        rows, products = attack.attack(self._context, models, evaluated)
        if self._context.ranks.first:
            self._rundir.write_json(self._rundir.attacks_json, self._earlier_attack_rows(rows, keys) + rows)
        self._finish_stage("attack", products, models=keys)

    def _earlier_attack_rows(self, rows: list[dict[str, Any]], keys: dict[str, str]) -> list[dict[str, Any]]:
        """Reads the rows of attacks.json that an earlier command wrote for the same three models.

        Rows that are computed now are left out, and so are 'not run' placeholders of attacks that now have results.

        Args:
            rows: the rows computed now.
            keys: role -> cache key of the three models.
        """
        if not self._rundir.attacks_json.is_file() or self._stages.get("attack", {}).get("models") != keys:
            return []
        settings = [(row["attack"], row["setting"]) for row in rows]
        names = {row["attack"] for row in rows}
        earlier: list[dict[str, Any]] = self._rundir.read_json(self._rundir.attacks_json)
        return [
            row
            for row in earlier
            if (row["attack"], row["setting"]) not in settings and not (row["attack"] in names and not row["n"])
        ]

    def _finish_stage(self, stage: str, products: Sequence[Product], **more: Any) -> None:
        """Writes to stages.json and to the tracker that a stage has ended, with its costs."""
        costs = account.sum_over_products(product.costs for product in products)
        from_cache = bool(products) and all(p.from_cache for p in products)
        self._lines.end(from_cache=from_cache)
        log.info("%s: %s, %.1f s", stage, ", ".join(str(p.folder) for p in products), costs.seconds)
        self._stages[stage] = {
            "key": "+".join(p.key for p in products),
            **costs.plain(),
            "this_run": self._book_work(),
            "from_cache": from_cache,
            "done": True,
            **more,
        }
        if self._context.ranks.first:
            self._rundir.write_json(self._rundir.stages_json, self._stages)
        self._context.tracker.summary({"stages": {stage: costs.plain()}})

    def _book_work(self) -> dict[str, float | None]:
        """Returns what all processes of this command have done themselves since the stage before ended.

        Unlike the costs of the products it counts no work of earlier commands, and steps that had to be repeated.
        """
        done, now = self._context.ledger.done, time.perf_counter()
        spent = sum(self._context.ranks.gather_objects(done - self._booked), Spent())
        seconds = now - self._stage_began
        self._booked, self._stage_began = done, now
        return {"seconds": seconds, **spent.plain()}
