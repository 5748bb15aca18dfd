"""An unlearning put together from a config: engine, objective and loop, ready for `loop.train`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import torch

from erulab.data.rows import Benchmark
from erulab.methods.base import Method, Pairs, Retain, Trains
from erulab.models.loaded import LoadedModel
from erulab.models.lora import WithoutAdapters, with_lora
from erulab.models.policy import Reference, without_dropout
from erulab.options import RunConfig
from erulab.ranks import Ranks
from erulab.registry import adversaries, rewards
from erulab.rewards.base import Reward
from erulab.tokens.batch import Encoded
from erulab.tokens.encoder import Encoder
from erulab.training.batches import Split, total_steps
from erulab.training.encode_rows import encode_others
from erulab.training.engine import Engine, bf16
from erulab.training.engines import build_engine
from erulab.training.loop import LoopOptions
from erulab.training.reference import reference_table
from erulab.training.unlearning import UnlearningObjective, UnlearningRows


def encode(encoder: Encoder, benchmark: Benchmark, method: Method, seed: int) -> UnlearningRows:
    """The rows in the ids of the model that is trained on them: a given target has its own tokenizer and template.

    Raises:
        DataError: the data set lacks what the method's pairs need, or a prompt leaves no room for its response.
    """
    pairs = Pairs.refusal if method.trains is Trains.refusal else method.pairs
    others: Sequence[Encoded] = ()
    if pairs is not Pairs.none:
        others = encode_others(encoder, benchmark.forget, pairs, benchmark.refusals, seed)
    return UnlearningRows(encoder.encode(benchmark.forget), others, encoder.encode(benchmark.retain))


def unlearning(
    subject: LoadedModel,
    target_key: str,
    rows: UnlearningRows,
    method: Method,
    config: RunConfig,
    ranks: Ranks,
    *,
    references: Path,
    forwards: Callable[[LoadedModel], AbstractContextManager[None]] = lambda whole: nullcontext(),
    frozen: Callable[[LoadedModel], Reference] = lambda whole: whole.copy().policy.requires_grad_(False),
) -> tuple[LoadedModel, Engine, UnlearningObjective, LoopOptions]:
    """What `loop.train` needs to unlearn with this config.

    Args:
        subject: the target, which is trained in place; target_key: of its weights.
        references: folder where reference log-probs are kept.
        forwards: what forwards of the subject need around them before there is an engine.
        frozen: makes the reference of retain kl from the subject, where no adapters can be taken off it.
    Returns:
        First the model that is trained: the subject, with adapters where `model.lora` wants them.
    """
    trainer, lora = config.trainer, config.model.lora
    if trainer.checkpointing:
        subject.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # Policy and reference are compared: dropout in one of them would be taken for forgetting.
    without_dropout(subject.model)
    reward: Reward | None = rewards.build(config.reward) if method.takes_reward else None
    adversary = adversaries.build(config.adversary)
    adversary.seed = config.seed
    table = None
    if reward is not None and reward.needs_reference:
        # In the precision of training: else depth would not be 0 before the first step.
        device = subject.policy.device
        half = bf16(trainer.precision, device)
        with forwards(subject), torch.autocast(device.type, torch.bfloat16, enabled=half):
            table = reference_table(
                subject.policy,
                f"{target_key}-bf16" if half else target_key,
                rows.forget,
                rows.others,
                folder=references,
                pad_id=subject.pad_id,
                batch_tokens=config.evaluation.batch_tokens,
                ranks=ranks,
            )
    kl = config.method.retain is Retain.kl
    reference = frozen(subject) if kl and not lora.rank else None
    if lora.rank:
        subject = with_lora(subject, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, seed=config.seed)
    policy = subject.policy
    if kl and lora.rank:
        reference = WithoutAdapters(policy)
    if trainer.compile:
        policy.compile_blocks()
    engine = build_engine(
        policy,
        config.engine,
        ranks,
        weight_decay=trainer.weight_decay,
        clip=trainer.clip,
        precision=trainer.precision,
    )
    objective = UnlearningObjective(
        rows,
        method,
        reward,
        adversary,
        forget_weight=config.method.forget_weight,
        retain=config.method.retain,
        retain_weight=config.method.retain_weight,
        references=table,
        frozen=reference,
        policy=policy,
        global_batch=trainer.global_batch,
        split=Split(trainer.micro_batch, trainer.micro_tokens),
        seed=config.seed,
        pad_id=subject.pad_id,
        ranks=ranks,
    )
    steps = total_steps(len(rows.forget), trainer.epochs, trainer.global_batch, trainer.steps)
    loop = LoopOptions(trainer.lr, steps, trainer.warmup, trainer.schedule, trainer.global_batch, trainer.save_every)
    subject.model.train()
    return subject, engine, objective, loop
