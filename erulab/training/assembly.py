"""An unlearning put together from a run's options: rows, references, objective and engine, ready for `loop.train`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from erulab.adversaries.base import Adversary
from erulab.adversaries.weights import WeightAdversary
from erulab.data.rows import Benchmark, Row
from erulab.methods.base import GradientMethod, Method
from erulab.methods.needs import Answer, ForgetTokens, Pairs
from erulab.models.dropout import disable_dropout
from erulab.models.forwards import Reference
from erulab.models.loaded import LoadedModel
from erulab.models.lora import WithoutAdapters, no_trained_adapter, with_lora
from erulab.models.options import Quantization
from erulab.models.policy import Policy
from erulab.options import Combine, RunConfig, TrainerOptions
from erulab.ranks import Ranks
from erulab.registry import adversaries, methods, rewards
from erulab.rewards.base import Reward
from erulab.tokens.batch import Encoded
from erulab.tokens.encoder import Encoder
from erulab.training.batches import Split, total_steps
from erulab.training.combine import Combination
from erulab.training.encode_rows import encode_alternatives, encode_paired, rows_with_spans
from erulab.training.engine import Engine, runs_in_bf16
from erulab.training.engines import build_engine
from erulab.training.loader import ModelLoader, ModelRef
from erulab.training.loop import LoopOptions
from erulab.training.objective import BatchPlan
from erulab.training.reference import ReferenceTable, reference_table
from erulab.training.relearning import RelearnedRows
from erulab.training.separate_gradients import SeparateGradients
from erulab.training.unlearning import References, Terms, UnlearningObjective, compares_with_frozen_model
from erulab.training.unlearning_batches import UnlearningRows


@dataclass(frozen=True)
class Unlearning:
    """One unlearning, ready for `loop.train`."""

    model: LoadedModel  # the one that is trained: the target, with adapters where `model.lora` wants them
    engine: Engine
    objective: UnlearningObjective
    loop: LoopOptions


def encode_unlearning_rows(
    encoder: Encoder,
    benchmark: Benchmark,
    method: Method,
    seed: int,
    forget_tokens: ForgetTokens = ForgetTokens.all,
    surprising: Sequence[Sequence[int]] | None = None,
    *,
    alternatives: Mapping[str, Sequence[str]] | None = None,
    with_facts: bool = False,
) -> UnlearningRows:
    """Encodes the rows that a method trains on.

    Args:
        method: of a method without a loss of its own on forget rows, the answers to forget and the retain rows.
        encoder: of the model that is trained: a given target may have its own tokenizer and template.
        seed: of the draw of paired answers.
        forget_tokens: the tokens of the forgotten answers that count.
        surprising: of each forget row the indices of its surprising tokens, as `Encoded.supervised`; None before a
            model has told them: the responses then count whole.
        alternatives: row id -> the answers that were generated for a forget row, if the method asks for them; None:
            not yet, and there are no paired answers.
        with_facts: whether the facts of the forget rows are told, for an adversary that relearns.
    Raises:
        DataError: the data set lacks what the method's pairs or `forget_tokens` need, or a prompt leaves no room for
            its response.
    """
    pairs, retain_pairs = Pairs.none, False
    if isinstance(method, GradientMethod):
        needs = method.needs
        pairs = Pairs.refusal if needs.answer is Answer.refusal else needs.pairs
        if needs.generated is not None and alternatives is None:
            pairs = Pairs.none
        retain_pairs = any(term.paired for term in method.retain_terms)
    forget, positions = benchmark.forget, surprising
    if forget_tokens is ForgetTokens.span:
        forget, positions = rows_with_spans(encoder, forget)
    encoded = encoder.encode(forget)
    if positions is not None:
        encoded = encoded.narrowed(positions)
    narrowed = forget_tokens is not ForgetTokens.all

    def paired(rows: Sequence[Row], kind: Pairs) -> Sequence[Encoded]:
        if alternatives is not None and kind is Pairs.alternative:
            return encode_alternatives(encoder, rows, alternatives)
        return encode_paired(encoder, rows, kind, benchmark.refusals, seed, narrowed=narrowed)

    return UnlearningRows(
        encoded,
        paired(forget, pairs) if pairs is not Pairs.none else (),
        encoder.encode(benchmark.retain),
        paired(benchmark.retain, Pairs.refusal) if retain_pairs else (),
        [row.fact_id for row in forget] if with_facts else (),
    )


def build_objective(
    config: RunConfig, rows: UnlearningRows, policy: Policy, references: References, *, pad_id: int, ranks: Ranks
) -> UnlearningObjective:
    """Builds the objective that a run's options describe, with a fresh method, reward and adversary.

    Args:
        config: read are `method`, `reward` (if the method takes one), `adversary`, `seed` and, of `trainer`, the sizes
            of global batch and micro-batch.
        policy: the model that is trained.
    """
    trainer = config.trainer
    method: GradientMethod = methods.build(config.method)
    method.seed = config.seed
    reward: Reward | None = rewards.build(config.reward) if method.needs.reward else None
    adversary = adversaries.build(config.adversary)
    adversary.seed = config.seed
    split = Split(trainer.micro_batch, trainer.micro_tokens)
    plan = BatchPlan(trainer.global_batch, split, config.seed, pad_id, ranks, trainer.retain_ratio)
    relearned = None
    if isinstance(adversary, WeightAdversary) and adversary.relearns:
        relearned = RelearnedRows(rows, plan, policy.device)
    terms = Terms(method, reward, adversary, _separate_gradients(trainer, adversary, ranks, relearned))
    return UnlearningObjective(rows, policy, terms, references, plan)


def _separate_gradients(
    trainer: TrainerOptions, adversary: Adversary, ranks: Ranks, relearned: RelearnedRows | None
) -> SeparateGradients | None:
    """Returns how the gradients of forget and retain rows are taken apart; None if they are taken together."""
    moves_weights = adversary if isinstance(adversary, WeightAdversary) and adversary.moves else None
    if trainer.combine is Combine.sum and moves_weights is None:
        return None
    combination = Combination(trainer.combine, trainer.combine_gamma, trainer.combine_decay)
    return SeparateGradients(combination, moves_weights, ranks, relearned)


def needs_reference_table(config: RunConfig) -> bool:
    """Tells whether the run's reward compares the policy's NLL with that of the model before unlearning."""
    return methods.build(config.method).needs.reward and rewards.build(config.reward).needs_reference


def assemble_unlearning(
    config: RunConfig,
    loader: ModelLoader,
    target: ModelRef,
    subject: LoadedModel,
    rows: UnlearningRows,
    ranks: Ranks,
    references: Path,
) -> Unlearning:
    """Puts together what `loop.train` needs to unlearn by a run's options.

    Args:
        target: the model that unlearning starts from; its key is part of the reference table's.
        subject: that model as `loader.load_to_train` gives it; it is trained in place.
        references: the folder where reference tables are kept.
    """
    trainer, lora = config.trainer, config.model.lora
    if trainer.checkpointing:
        subject.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    # Policy and reference are compared: dropout in one of them would be taken for forgetting.
    disable_dropout(subject.model)
    table = None
    if needs_reference_table(config):
        table = _reference_table(config, loader, target, subject, rows, ranks, references)
    frozen: Reference | None = None
    method: GradientMethod = methods.build(config.method)
    compares_live = compares_with_frozen_model(method)
    if compares_live and not lora.rank:
        frozen = loader.frozen_copy(target, subject)
    if lora.rank:
        subject = with_lora(subject, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, seed=config.seed)
    policy = subject.policy
    if compares_live and lora.rank:
        frozen = WithoutAdapters(policy)
    freeze_untrained(policy, method)
    if trainer.compile:
        policy.compile_blocks()
    engine = build_engine(
        policy,
        config.engine,
        ranks,
        weight_decay=trainer.weight_decay,
        clip=trainer.clip,
        precision=trainer.precision,
        optimizer=trainer.optimizer,
    )
    objective = build_objective(config, rows, policy, References(table, frozen), pad_id=subject.pad_id, ranks=ranks)
    steps = total_steps(len(rows.forget), trainer.epochs, trainer.global_batch, trainer.steps)
    loop = LoopOptions(trainer.lr, steps, trainer.warmup, trainer.schedule, trainer.global_batch, trainer.save_every)
    subject.model.train()
    return Unlearning(subject, engine, objective, loop)


def freeze_untrained(policy: Policy, method: GradientMethod) -> None:
    """Freezes the weights that a method does not train.

    Raises:
        ConfigError: none is left.
    """
    depth, trained = len(policy.blocks), 0
    embedding: Any = policy.model.get_input_embeddings()
    trains_embedding = embedding.weight.requires_grad
    for name, parameter in policy.model.named_parameters():
        if parameter.requires_grad and not method.trains(name, depth):
            parameter.requires_grad_(False)
        trained += parameter.requires_grad
    if not trained:
        raise no_trained_adapter(method.options.name)
    if trains_embedding and not embedding.weight.requires_grad:
        # With gradient checkpointing transformers makes the embedding's output require a gradient: each backward would
        # go on from the lowest trained block to the embedding.
        policy.model.disable_input_require_grads()


def _reference_table(
    config: RunConfig,
    loader: ModelLoader,
    target: ModelRef,
    subject: LoadedModel,
    rows: UnlearningRows,
    ranks: Ranks,
    folder: Path,
) -> ReferenceTable:
    # In the precision of training: otherwise depth would not be 0 before the first step.
    device = subject.policy.device
    half = runs_in_bf16(config.trainer.precision, device)
    quantize = config.model.lora.quantize
    rounded = [word for word, is_so in (("bf16", half), (quantize.value, quantize is not Quantization.none)) if is_so]
    with loader.forwards_before_engine(subject), torch.autocast(device.type, torch.bfloat16, enabled=half):
        return reference_table(
            subject.policy,
            "-".join([target.key, *rounded]),
            rows.forget,
            rows.paired,
            folder=folder,
            pad_id=subject.pad_id,
            batch_tokens=config.evaluation.fixed_tokens,
            ranks=ranks,
        )
