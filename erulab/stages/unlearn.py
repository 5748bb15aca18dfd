"""Unlearning: the target, trained by method, reward and adversary; several requests one after another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from erulab.config import data_rules
from erulab.costs import account
from erulab.costs.account import Costs
from erulab.costs.shapes import FAMILIES
from erulab.data.rows import Request
from erulab.errors import ConfigError, DataError
from erulab.methods.base import GradientMethod
from erulab.models import loading
from erulab.models.loaded import LoadedModel
from erulab.models.loading import save_folder
from erulab.models.lora import check_targets, merged, save_adapter, with_lora
from erulab.options import NOT_IN_PRODUCT, SavedModel
from erulab.registry import adversaries, methods, rewards
from erulab.reporting.console import progress
from erulab.stages.cache import Product
from erulab.stages.context import Context, ModelRef
from erulab.stages.trajectory import Trajectory
from erulab.training.assembly import encode, unlearning
from erulab.training.batches import total_steps
from erulab.training.checkpoints import FORMAT, Checkpoints
from erulab.training.encode_rows import content_hash
from erulab.training.engine import Engine
from erulab.training.loop import train
from erulab.training.unlearning import UnlearningRows

log = logging.getLogger(__name__)

VERSION = 1  # of what this stage computes: a change makes every unlearned model anew
UNLEARNED = "unlearned"  # the role of the last request's model
METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Step:
    """One request that has been unlearned. `costs`: of all that led from the target to its model."""

    role: str
    product: Product
    costs: Costs

    @property
    def ref(self) -> ModelRef:
        return ModelRef(self.product.key, str(self.product.folder / "model"))


def check(context: Context) -> None:
    """What can be wrong with this unlearning and is known before anything is trained.

    Raises:
        DataError: the data set lacks forget rows, or what the method's pairs need; ConfigError: what its retain term,
            the adversary or adapters need.
    """
    config, benchmark = context.config, context.benchmark
    lora = config.model.lora
    family = FAMILIES.get(str(context.source.architecture(benchmark)["model_type"])) if lora.rank else None
    if lora.targets is not None and family is not None:
        check_targets(lora.targets, family.names)
    if not methods[config.method.name].factory.trains.has_forget_loss:
        return
    method: GradientMethod = methods.build(config.method)
    if not benchmark.forget:
        raise DataError(
            f"method={config.method.name} needs forget rows, and data set {benchmark.name} has none"
            f"{benchmark.lacking}; name a folder that has them"
        )
    if config.artifacts.model is SavedModel.adapter and any(one.continues for one in benchmark.requests[1:]):
        raise ConfigError(
            "artifacts.model=adapter keeps one adapter to put on the target, and of several requests each is put on "
            "the model before it; type artifacts.model=full"
        )
    if not benchmark.retain:
        data_rules.check_without_retain(config, benchmark.lacking)
    encode(context.encoder, benchmark, method, config.seed)


def unlearn(context: Context, target: ModelRef) -> list[Step]:
    """Every request in turn, each cached like a target; `metrics.jsonl` of its training is kept beside it.

    Returns:
        The last one's model is the role "unlearned", those of the others "unlearned@<request>".
    """
    first_step = 0

    def make(start: ModelRef, request: Request) -> Product:
        nonlocal first_step
        several = len(context.benchmark.requests) > 1
        context.tracker.begin(request.name if several else "", first_step)
        first_step += _steps(context, request)
        method, rows = _rows(context, start, request)
        title = f"unlearning request {request.name}" if several else "unlearning"
        product = context.cache.produce(
            "unlearned",
            _depends_on(context, start, rows),
            lambda folder: _unlearn(context, start, method, rows, folder, title),
            rerun=context.config.rerun,
        )
        if product.from_cache:
            context.tracker.replay(product.folder / METRICS)
        return product

    return list(_in_turn(context, target, make))


def find(context: Context, target: ModelRef) -> list[Step]:
    """The requests that an earlier run unlearned, up to the first that is not there."""

    def look(start: ModelRef, request: Request) -> Product | None:
        return context.cache.find("unlearned", _depends_on(context, start, _rows(context, start, request)[1]))

    return list(_in_turn(context, target, look))


def _in_turn(context: Context, target: ModelRef, make: Callable[[ModelRef, Request], Product | None]) -> Iterator[Step]:
    """Each request from the model it starts from; ends where there is no product."""
    requests = context.benchmark.requests or (Request("", context.benchmark.forget),)
    last: Step | None = None
    for request in requests:
        before = last if request.continues else None
        product = make(target if before is None else before.ref, request)
        if product is None:
            return
        costs = product.costs if before is None else account.sum_over_products([before.costs, product.costs])
        last = Step(UNLEARNED if request is requests[-1] else f"{UNLEARNED}@{request.name}", product, costs)
        yield last


def _steps(context: Context, request: Request) -> int:
    trainer = context.config.trainer
    return total_steps(len(request.forget), trainer.epochs, trainer.global_batch, trainer.steps)


def _rows(context: Context, start: ModelRef, request: Request) -> tuple[GradientMethod, UnlearningRows]:
    method: GradientMethod = methods.build(context.config.method)
    asked = replace(context.benchmark, forget=request.forget)
    return method, encode(context.encoder_of(context.chat_of(start.path)), asked, method, context.config.seed)


def _depends_on(context: Context, target: ModelRef, rows: UnlearningRows) -> dict[str, Any]:
    config = context.config
    plugins = (methods[config.method.name], rewards[config.reward.name], adversaries[config.adversary.name])
    code = [plugin.code for plugin in plugins if plugin.code]
    return {
        "stage": "unlearn",
        "version": VERSION,
        "target": target.key,
        "seed": config.seed,
        "method": asdict(config.method),
        "reward": asdict(config.reward),
        "adversary": asdict(config.adversary),
        "trainer": {k: v for k, v in asdict(config.trainer).items() if k not in NOT_IN_PRODUCT},
        "lora": asdict(config.model.lora) if config.model.lora.rank else None,
        "forget": content_hash(rows.forget),
        "paired": content_hash(rows.paired),
        "retain": content_hash(rows.retain),
        **({"code": code} if code else {}),
        # What is looked at along the way is kept with the model.
        **({"looks": context.data.identity_of_selected} if config.trainer.eval_every is not None else {}),
    }


def _unlearn(
    context: Context, target: ModelRef, method: GradientMethod, rows: UnlearningRows, folder: Path, title: str
) -> None:
    config, ranks = context.config, context.ranks
    trainer = config.trainer
    loaded, engine, objective, loop = unlearning(
        context.load_to_train(target),
        target.key,
        rows,
        method,
        config,
        ranks,
        references=context.cache.folder("references"),
        forwards=context.forwards,
        frozen=lambda loaded: context.frozen(target, loaded),
    )
    checkpoints = Checkpoints(folder / "checkpoints", FORMAT, ranks)
    kept = folder / METRICS
    context.tracker.resume(kept)
    trajectory = Trajectory(context, loaded, engine)
    try:
        with progress(title, loop.steps, enabled=ranks.first) as bar:
            for step, metrics in train(engine, objective, loop, ranks, checkpoints, context.stop):
                bar.update(step + 1, metrics)
                seen = trajectory.after(step + 1)
                if step % trainer.log_every == 0 or step == loop.steps - 1 or seen:
                    context.tracker.log(step, metrics | seen)
                if trainer.save_every and (step + 1) % trainer.save_every == 0:
                    context.tracker.keep(kept)
    finally:
        context.tracker.keep(kept)
    _save(context, target, loaded, engine, folder)
    checkpoints.clear()


def _save(context: Context, target: ModelRef, trained: LoadedModel, engine: Engine, folder: Path) -> None:
    lora, first = context.config.model.lora, context.ranks.first
    if not lora.rank:
        save_folder(trained, folder / "model", engine.weights(), write=first)
        return
    adapters = dict(engine.weights(trained_only=True))
    if first:
        # On the target anew, in host memory: under zero3 no rank holds the whole model that was trained.
        target_model = loading.load_folder(target.path, context.config.model.attention, context.source.frame)
        whole = with_lora(
            target_model, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, seed=context.config.seed
        )
        missing, unexpected = whole.model.load_state_dict(adapters, strict=False)
        assert not unexpected and not any("lora_" in name for name in missing), (missing, unexpected)
        save_adapter(whole, folder / "adapter")
        save_folder(merged(whole), folder / "model")
    context.ranks.barrier()
