"""What a run would make, and what the cache has of it already; loads no model and makes nothing but rows."""

from __future__ import annotations

from dataclasses import dataclass

from erulab.data.rows import Row
from erulab.evaluation.suites import evaluated_rows
from erulab.methods.base import StandIn
from erulab.options import Stage
from erulab.registry import methods
from erulab.roles import ORACLE
from erulab.stages import attack, checks, evaluate, learn, unlearn
from erulab.stages.cache import key_of
from erulab.stages.context import Context
from erulab.stages.unlearn import UNLEARNED
from erulab.training.batches import total_steps
from erulab.training.loader import ModelRef


@dataclass(frozen=True)
class PlannedProduct:
    """Something that a stage makes: a model, the scores of one, the attacks.

    found, needed: how many parts of it the cache has, and how many there are; none for what the user gives.
    detail: rows and steps, or where it comes from.
    seconds: that making it took, where the cache has it.
    key: of a model that is to be learned, which other runs may learn as well; empty for everything else.
    """

    stage: str
    what: str
    found: int
    needed: int
    detail: str
    seconds: float | None = None
    key: str = ""


class DryRun:
    """Follows a run's stages as the pipeline does, and looks up each product instead of making it.

    A model that is to be made is not looked beyond: what is made of it counts as missing, because the keys of most of
    it need the model's folder.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._refs: dict[str, ModelRef] = {}  # models that are there
        self._coming: set[str] = set()  # models that the run makes
        self._products: list[PlannedProduct] = []

    def products(self) -> list[PlannedProduct]:
        """Returns what the run's stages make, in order.

        Raises:
            ErulabError: the line that the run would end with.
        """
        context, config = self._context, self._context.config
        self._learn(Stage.target, ["target"], [] if config.model.target is None else [config.model.target])
        self._learn(Stage.oracle, config.oracles, config.model.oracles)
        if context.attacks:
            self._require("oracle")
        self._unlearn()
        if Stage.evaluate in config.stages:
            self._evaluate()
        if context.attacks:
            self._attack()
        return self._products

    def _learn(self, stage: Stage, roles: list[str], given: list[str]) -> None:
        context, config = self._context, self._context.config
        for role, path in zip(roles, given, strict=False):
            checks.check_given_model(context, path)
            self._refs[role] = context.loader.given(path)
            self._add(stage, role, 0, 0, f"given: {path}")
        if given or (stage not in config.stages and config.only_given_models):
            return
        for role in roles:
            # Data sets on what pretrained models know have no rows to learn: then there is no model.
            product = learn.find_learned(context, role)
            if product is not None and not (config.rerun and stage in config.stages):
                self._refs[role] = product.model
                self._add(stage, role, 1, 1, "", product.costs.seconds)
            elif stage in config.stages:
                rows, options = learn.learned_rows(context, role), config.target
                steps = total_steps(len(rows), options.epochs, options.global_batch)
                self._coming.add(role)
                key = key_of(learn.learning_depends_on(context, role))
                self._products.append(
                    PlannedProduct(stage.value, role, 0, 1, f"{len(rows)} rows, {steps} steps", key=key)
                )

    def _unlearn(self) -> None:
        context, config = self._context, self._context.config
        if config.model.unlearned is not None:
            checks.check_given_model(context, config.model.unlearned)
            self._refs[UNLEARNED] = context.loader.given(config.model.unlearned)
            self._add(Stage.unlearn, UNLEARNED, 0, 0, f"given: {config.model.unlearned}")
            return
        method = methods.build(config.method)
        if isinstance(method, StandIn):
            if context.unlearns:
                self._require(method.stands_for)
                self._add(Stage.unlearn, UNLEARNED, 0, 0, f"the {method.stands_for} itself")
            if method.stands_for in self._refs:
                self._refs[UNLEARNED] = self._refs[method.stands_for]
            elif method.stands_for in self._coming:
                self._coming.add(UNLEARNED)
            return
        if context.unlearns:
            self._require("target")
            if context.keeps_best:
                self._require("oracle")
        target, oracle = self._refs.get("target"), self._refs.get(ORACLE)
        known = target is not None and not (context.keeps_best and oracle is None)
        found = unlearn.find_unlearned(context, target, oracle) if target is not None and known else []
        if config.rerun and context.unlearns:
            found = []
        requests = unlearn.steps_by_request(context)
        for request in found:
            self._refs[request.role] = request.ref
        if not context.unlearns:
            return
        for index, (name, rows, steps) in enumerate(requests):
            what = f"{UNLEARNED}, request {name}" if name else UNLEARNED
            if index < len(found):
                self._add(Stage.unlearn, what, 1, 1, "", found[index].products[-1].costs.seconds)
                continue
            self._coming.add(UNLEARNED if index == len(requests) - 1 else f"{UNLEARNED}@{name}")
            self._add(Stage.unlearn, what, 0, 1, f"{rows} forget rows, {steps} steps")

    def _evaluate(self) -> None:
        context = self._context
        if not self._refs and not self._coming:
            self._require("target")
        rows = len(self._evaluated_rows())
        made = 0 if context.config.rerun else sum(evaluate.has_scores(context, ref) for ref in self._refs.values())
        needed = len({*self._refs, *self._coming})
        self._add(Stage.evaluate, "scores", made, needed, f"{rows} rows each")

    def _attack(self) -> None:
        context = self._context
        for role in ("target", UNLEARNED, "oracle"):
            self._require(role)
        refs = {} if context.config.rerun else self._refs
        made, needed = attack.count_attacked(context, refs, scored=Stage.evaluate in context.config.stages)
        names = ", ".join(context.config.attack)
        self._add(Stage.attack, "attacks", made, needed, f"{names}: settings, repeats and models")

    def _evaluated_rows(self) -> list[Row]:
        parts = (self._context.data, *self._context.extra_benchmarks)
        suites = [suite for part in parts for suite in part.selected.suites]
        return [row for suite in suites for row in evaluated_rows(suite, self._context.config.evaluation)]

    def _require(self, role: str) -> None:
        if role not in self._refs and role not in self._coming:
            raise checks.no_such_model(role)

    def _add(self, stage: Stage, what: str, found: int, needed: int, detail: str, seconds: float | None = None) -> None:
        self._products.append(PlannedProduct(stage.value, what, found, needed, detail, seconds))
