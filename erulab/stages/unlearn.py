"""Unlearning: the target, trained by method, reward and adversary."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erulab.cache import Product
from erulab.console import progress
from erulab.data.encoding import Encoded
from erulab.errors import ConfigError
from erulab.methods.base import Method, Pairs, Retain, Trains
from erulab.models.chat import ChatFormat
from erulab.models.loading import chat_of, save_folder
from erulab.models.policy import without_dropout
from erulab.ranks import Ranks
from erulab.registry import adversaries, methods, rewards
from erulab.rewards.base import Reward
from erulab.rundir import RunDir
from erulab.stages.context import Context, ModelRef
from erulab.training.batches import total_steps
from erulab.training.checkpoints import Checkpoints
from erulab.training.encode_rows import content_hash, encode_others
from erulab.training.engines import build_engine
from erulab.training.loop import LoopOptions, train
from erulab.training.reference import reference_table
from erulab.training.unlearning import UnlearningObjective, UnlearningRows

log = logging.getLogger(__name__)

VERSION = 1  # of what this stage computes: a change makes every unlearned model anew

# What a trainer option may change without changing the product.
NOT_IN_KEY = ("micro_batch", "micro_tokens", "log_every", "save_every", "checkpointing")


def check(context: Context) -> None:
    """What can be wrong with this unlearning and is known before anything is trained.

    Raises:
        ConfigError: the reward couples rows and the global batch is not one micro-step.
        DataError: the data set lacks what the method's pairs need.
    """
    config = context.config
    method: Method = methods.build(config.method)
    if method.trains not in (Trains.forget, Trains.refusal):
        return
    encode(context, method, context.chat)
    trainer = config.trainer
    share = trainer.global_batch // context.ranks.world
    cut = trainer.micro_tokens is not None or trainer.micro_batch not in (None, share)
    if cut and method.takes_reward and rewards.build(config.reward).needs_whole_batch:
        raise ConfigError(
            f"reward={config.reward.name} needs the global batch in one micro-step, got trainer.micro_batch="
            f"{trainer.micro_batch} and trainer.micro_tokens={trainer.micro_tokens}; leave both out"
        )


def unlearn(context: Context, target: ModelRef, rundir: RunDir) -> Product:
    """The unlearned model, cached like a target; `metrics.jsonl` of its training is kept beside it."""
    config = context.config
    method: Method = methods.build(config.method)
    rows = encode(context, method, chat_of(target.path))
    product = context.cache.produce(
        "unlearned", _depends_on(context, target, rows),
        lambda folder: _unlearn(context, target, method, rows, rundir, folder), rerun=config.rerun,
    )  # fmt: skip
    if product.from_cache:
        context.tracker.replay(product.folder / "metrics.jsonl")
    return product


def find(context: Context, target: ModelRef) -> Product | None:
    """The product if an earlier run made it."""
    rows = encode(context, methods.build(context.config.method), chat_of(target.path))
    return context.cache.find("unlearned", _depends_on(context, target, rows))


def _depends_on(context: Context, target: ModelRef, rows: UnlearningRows) -> dict[str, Any]:
    config = context.config
    plugins = (methods[config.method.name], rewards[config.reward.name], adversaries[config.adversary.name])
    code = [plugin.code for plugin in plugins if plugin.code]
    return {
        "stage": "unlearn", "version": VERSION, "target": target.key, "seed": config.seed,
        "method": asdict(config.method), "reward": asdict(config.reward), "adversary": asdict(config.adversary),
        "trainer": {k: v for k, v in asdict(config.trainer).items() if k not in NOT_IN_KEY},
        "forget": content_hash(rows.forget), "others": content_hash(rows.others), "retain": content_hash(rows.retain),
        **({"code": code} if code else {}),
    }  # fmt: skip


def encode(context: Context, method: Method, chat: ChatFormat) -> UnlearningRows:
    """The rows in the ids of the model that is trained on them: a given target has its own tokenizer and template.

    Raises:
        DataError: the data set lacks what the method's pairs need, or a prompt leaves no room for its response.
    """
    benchmark, encoder = context.benchmark, context.encoder_of(chat)
    pairs = Pairs.refusal if method.trains is Trains.refusal else method.pairs
    others: Sequence[Encoded] = ()
    if pairs is not Pairs.none:
        others = encode_others(encoder, benchmark.forget, pairs, benchmark.refusals, context.config.seed)
    return UnlearningRows(encoder.rows(benchmark.forget), others, encoder.rows(benchmark.retain))


def _unlearn(
    context: Context, target: ModelRef, method: Method, rows: UnlearningRows, rundir: RunDir, folder: Path
) -> None:
    config, ranks = context.config, context.ranks
    trainer = config.trainer
    loaded = context.load(target)
    if trainer.checkpointing:
        loaded.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # Policy and reference are compared: dropout in one of them would be taken for forgetting.
    without_dropout(loaded.model)
    reward: Reward | None = rewards.build(config.reward) if method.takes_reward else None
    adversary = adversaries.build(config.adversary)
    adversary.seed = config.seed
    references = None
    if reward is not None and reward.needs_reference:
        references = reference_table(
            loaded.policy, target.key, rows.forget, rows.others, folder=context.cache.folder("references"),
            pad_id=loaded.pad_id, batch_tokens=config.evaluation.batch_tokens, ranks=ranks,
        )  # fmt: skip
    frozen = None
    if config.method.retain is Retain.kl:
        frozen = loaded.copy().policy.requires_grad_(False)
    policy = loaded.policy
    engine = build_engine(
        policy, config.engine, ranks, weight_decay=trainer.weight_decay, clip=trainer.clip,
        precision=trainer.precision,
    )  # fmt: skip
    objective = UnlearningObjective(
        rows, method, reward, adversary, forget_weight=config.method.forget_weight, retain=config.method.retain,
        retain_weight=config.method.retain_weight, references=references, frozen=frozen, policy=policy,
        global_batch=trainer.global_batch, split=context.split(trainer.micro_batch), seed=config.seed,
        pad_id=loaded.pad_id, ranks=ranks,
    )  # fmt: skip
    steps = total_steps(len(rows.forget), trainer.epochs, trainer.global_batch, trainer.steps)
    loop = LoopOptions(
        trainer.lr, steps, trainer.warmup, trainer.schedule, trainer.global_batch, trainer.save_every
    )
    checkpoints = Checkpoints(folder / "checkpoints", f"{config.engine.name}-{ranks.world}", ranks)
    loaded.model.train()
    kept = folder / "metrics.jsonl"
    if ranks.first and kept.exists():  # of the run that began this unlearning, maybe in another folder
        shutil.copy(kept, rundir.metrics_jsonl)
    try:
        with progress("unlearning", steps, enabled=ranks.first) as bar:
            for step, metrics in train(engine, objective, loop, ranks, checkpoints, context.stop):
                bar.update(step + 1, metrics)
                if step % trainer.log_every == 0 or step == steps - 1:
                    context.tracker.log(step, metrics)
                if trainer.save_every and (step + 1) % trainer.save_every == 0:
                    _keep_metrics(rundir, kept, ranks)
    finally:
        _keep_metrics(rundir, kept, ranks)
    save_folder(loaded, folder / "model", engine.state_dict())
    checkpoints.clear()


def _keep_metrics(rundir: RunDir, kept: Path, ranks: Ranks) -> None:
    """The lines so far, beside the checkpoints: whichever run continues from there has them all."""
    if ranks.first and rundir.metrics_jsonl.exists():
        shutil.copy(rundir.metrics_jsonl, kept)
