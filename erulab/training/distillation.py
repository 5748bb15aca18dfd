"""Distillation: a model is trained towards the distributions of another one, which stays frozen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from erulab.methods.retain import RETAIN_TERMS, Retain
from erulab.models.forwards import Reference, view_reference
from erulab.models.loaded import LoadedModel
from erulab.models.request import ForwardRequest, PartRequest
from erulab.options import EngineOptions
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded
from erulab.training.engine import Engine
from erulab.training.finetune import FinetuneOptions, assemble_finetuning
from erulab.training.loop import LoopOptions
from erulab.training.objective import BatchPlan, FinetuneBatch, FinetuneObjective, Forward, Sums

_KL = RETAIN_TERMS[Retain.kl][0].values


class DistillationObjective(FinetuneObjective):
    """Mean over the supervised tokens of the global batch of KL(teacher || student), in nats."""

    def __init__(self, rows: Sequence[Encoded], teacher: Reference, plan: BatchPlan, device: torch.device) -> None:
        """
        Args:
            teacher: the frozen model.
            device: of the student's weights.
        """
        super().__init__(rows, plan, device)
        self._teacher = teacher

    @contextmanager
    def micro_step(self, forward: Forward, micro: FinetuneBatch) -> Iterator[tuple[torch.Tensor, Sums]]:
        batch = micro.batch.to(self._device)
        part = PartRequest(len(batch.row_ids), int(batch.supervised.sum()), nll=False, values=_KL)
        request = ForwardRequest((part,))
        (shown,) = forward(batch, request, view_reference(self._teacher, batch, request))
        loss = shown.values["kl"].sum() / micro.tokens
        yield loss, {"loss": loss.detach()}


def assemble_distillation(
    subject: LoadedModel,
    teacher: Reference,
    rows: Sequence[Encoded],
    options: FinetuneOptions,
    engine_options: EngineOptions,
    ranks: Ranks,
) -> tuple[Engine, DistillationObjective, LoopOptions]:
    """Puts together the arguments of `loop.train` that train a model, in place, towards another one on rows.

    Args:
        subject: the student; it is changed.
        teacher: the frozen model.
        rows: whose supervised tokens are compared.
        options: settings of the training.
        engine_options: where it runs.
    """
    engine, _, loop = assemble_finetuning(subject, rows, options, engine_options, ranks)
    plan = BatchPlan(options.global_batch, options.split, options.seed, subject.pad_id, ranks)
    return engine, DistillationObjective(rows, teacher, plan, subject.policy.device), loop
