"""Unlearning: the target, trained by method, reward and adversary."""

from __future__ import annotations

import logging
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erulab import data_rules
from erulab.cache import Product
from erulab.console import progress
from erulab.costs.shapes import FAMILIES
from erulab.methods.base import Method, Trains
from erulab.models import loading
from erulab.models.loaded import LoadedModel
from erulab.models.loading import save_folder
from erulab.models.lora import check_targets, merged, save_adapter, with_lora
from erulab.options import NOT_IN_PRODUCT
from erulab.ranks import Ranks
from erulab.registry import adversaries, methods, rewards
from erulab.rundir import RunDir
from erulab.stages.context import Context, ModelRef
from erulab.training.assembly import encode, unlearning
from erulab.training.checkpoints import FORMAT, Checkpoints
from erulab.training.encode_rows import content_hash
from erulab.training.engine import Engine
from erulab.training.loop import train
from erulab.training.unlearning import UnlearningRows

log = logging.getLogger(__name__)

VERSION = 1  # of what this stage computes: a change makes every unlearned model anew


def check(context: Context) -> None:
    """What can be wrong with this unlearning and is known before anything is trained.

    Raises:
        DataError: the data set lacks what the method's pairs need; ConfigError: what its retain term, the adversary or
            adapters need.
    """
    config = context.config
    lora = config.model.lora
    family = FAMILIES.get(str(context.source.architecture(context.benchmark)["model_type"])) if lora.rank else None
    if lora.targets is not None and family is not None:
        check_targets(lora.targets, family.names)
    method: Method = methods.build(config.method)
    if method.trains not in (Trains.forget, Trains.refusal):
        return
    if not context.benchmark.retain:
        data_rules.check_without_retain(config)
    encode(context.encoder, context.benchmark, method, config.seed)


def unlearn(context: Context, target: ModelRef, rundir: RunDir) -> Product:
    """The unlearned model, cached like a target; `metrics.jsonl` of its training is kept beside it."""
    config = context.config
    method: Method = methods.build(config.method)
    rows = encode(context.encoder_of(context.chat_of(target.path)), context.benchmark, method, config.seed)
    product = context.cache.produce(
        "unlearned", _depends_on(context, target, rows),
        lambda folder: _unlearn(context, target, method, rows, rundir, folder), rerun=config.rerun,
    )  # fmt: skip
    if product.from_cache:
        context.tracker.replay(product.folder / "metrics.jsonl")
    return product


def find(context: Context, target: ModelRef) -> Product | None:
    """The product if an earlier run made it."""
    rows = encode(
        context.encoder_of(context.chat_of(target.path)), context.benchmark, methods.build(context.config.method),
        context.config.seed,
    )  # fmt: skip
    return context.cache.find("unlearned", _depends_on(context, target, rows))


def _depends_on(context: Context, target: ModelRef, rows: UnlearningRows) -> dict[str, Any]:
    config = context.config
    plugins = (methods[config.method.name], rewards[config.reward.name], adversaries[config.adversary.name])
    code = [plugin.code for plugin in plugins if plugin.code]
    return {
        "stage": "unlearn", "version": VERSION, "target": target.key, "seed": config.seed,
        "method": asdict(config.method), "reward": asdict(config.reward), "adversary": asdict(config.adversary),
        "trainer": {k: v for k, v in asdict(config.trainer).items() if k not in NOT_IN_PRODUCT},
        "lora": asdict(config.model.lora) if config.model.lora.rank else None,
        "forget": content_hash(rows.forget), "others": content_hash(rows.others), "retain": content_hash(rows.retain),
        **({"code": code} if code else {}),
    }  # fmt: skip


def _unlearn(
    context: Context, target: ModelRef, method: Method, rows: UnlearningRows, rundir: RunDir, folder: Path
) -> None:
    config, ranks = context.config, context.ranks
    trainer = config.trainer
    loaded, engine, objective, loop = unlearning(
        context.load_to_train(target), target.key, rows, method, config, ranks,
        references=context.cache.folder("references"), forwards=context.forwards,
        frozen=lambda loaded: context.frozen(target, loaded),
    )  # fmt: skip
    checkpoints = Checkpoints(folder / "checkpoints", FORMAT, ranks)
    kept = folder / "metrics.jsonl"
    if ranks.first and kept.exists():  # of the run that began this unlearning, maybe in another folder
        shutil.copy(kept, rundir.metrics_jsonl)
    try:
        with progress("unlearning", loop.steps, enabled=ranks.first) as bar:
            for step, metrics in train(engine, objective, loop, ranks, checkpoints, context.stop):
                bar.update(step + 1, metrics)
                if step % trainer.log_every == 0 or step == loop.steps - 1:
                    context.tracker.log(step, metrics)
                if trainer.save_every and (step + 1) % trainer.save_every == 0:
                    _keep_metrics(rundir, kept, ranks)
    finally:
        _keep_metrics(rundir, kept, ranks)
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


def _keep_metrics(rundir: RunDir, kept: Path, ranks: Ranks) -> None:
    """The lines so far, beside the checkpoints: whichever run continues from there has them all."""
    if ranks.first and rundir.metrics_jsonl.exists():
        shutil.copy(rundir.metrics_jsonl, kept)
