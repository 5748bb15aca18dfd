"""The micro-batches of an unlearning: forget rows, their paired answers and retain rows of one forward."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import torch

from erulab import draws
from erulab.adversaries.base import Adversary
from erulab.data.arrow_sequence import read_items
from erulab.methods.base import GradientMethod
from erulab.methods.needs import Answer, Pairs
from erulab.methods.retain import Normalizer
from erulab.models.request import ForwardRequest
from erulab.tokens.batch import Batch, Encoded, collate
from erulab.training.batches import Part, micro_batches, rows_of_stream
from erulab.training.objective import BatchPlan, pinned
from erulab.training.requests import forget_parts, retain_parts

# Steps between two measurements of the adversary's effect, each of which takes two more forwards of one micro-batch.
GAIN_EVERY = 10


@dataclass(frozen=True)
class UnlearningRows:
    """Encoded rows of one unlearning.

    `paired[i]` is the paired answer or refusal of `forget[i]`, where one is used. With several alternatives of each
    row, alternative j is `paired[j * len(forget) + i]`.
    """

    forget: Sequence[Encoded]
    paired: Sequence[Encoded]
    retain: Sequence[Encoded]
    retain_paired: Sequence[Encoded] = ()  # refusals to the retain prompts, where the method asks for them
    facts: Sequence[str] = ()  # the fact of each forget row; empty: each is one of its own

    def paired_index(self, row: int, row_pass: int, seed: int) -> int:
        """Returns the index of the paired answer that a forget row is compared with.

        Several alternatives take turns in an order that is drawn by (seed, row id): over as many passes as there are
        alternatives, each comes once.

        Args:
            row: index of the forget row.
            row_pass: number of the pass over the forget rows, from 0.
        """
        alternatives = len(self.paired) // len(self.forget)
        if alternatives == 1:
            return row
        order = draws.permutation(alternatives, seed, "alternatives", self.forget[row].row_id)
        return order[row_pass % alternatives] * len(self.forget) + row


# Sequences, and the index of that of each row.
Source = tuple[Sequence[Encoded], Sequence[int]]


class Gradients(Enum):
    """Whether the gradients of forget and retain rows are computed together or apart."""

    together = "together"  # one forward runs rows of both kinds
    apart = "apart"  # each forward runs rows of one kind, for methods that change or combine the two gradients


@dataclass(frozen=True)
class Counts:
    """Counts of the rows of one kind in the global batch, which sums of losses are divided by."""

    rows: int
    tokens: int  # supervised
    states: int  # prompt and response

    @classmethod
    def of(cls, rows: Sequence[Encoded]) -> Counts:
        return cls(len(rows), sum(row.tokens for row in rows), sum(len(row.ids) for row in rows))

    def by(self, normalizer: Normalizer) -> int:
        """Returns the count that a normalizer names."""
        return {Normalizer.rows: self.rows, Normalizer.tokens: self.tokens, Normalizer.states: self.states}[normalizer]


@dataclass(frozen=True)
class GlobalBatch:
    """The rows of one optimizer step, over all ranks."""

    step: int
    answers: dict[int, list[Encoded]]  # forget row -> the sequences that it is run as
    paired: dict[int, int]  # forget row -> index of its paired answer, if there are paired answers
    retain: dict[int, list[Encoded]]  # retain row -> likewise
    forget_counts: Counts  # of the first answers
    retain_counts: Counts


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward: forget rows, their paired answers, retain rows; and the counts losses are divided by."""

    step: int
    forget: Sequence[int]
    paired: Sequence[int]  # index of the paired answer of each forget row, if there are paired answers
    forget_parts: int  # parts of the request that are answers to the forget rows; the other parts are of retain rows
    perturbed: Batch | None  # the forget rows with their own responses, as an adversary sees them
    batch: Batch
    request: ForwardRequest
    # (rows of the batch,) int64: index of the forget row whose perturbation this row gets; -1: left alone.
    perturbed_as_forget_row: torch.Tensor
    forget_counts: Counts  # of the global batch
    retain_counts: Counts
    measures_gain: bool  # whether the adversary's effect is measured on these rows


class UnlearningBatches:
    """Draws the rows of each step and cuts them into micro-batches."""

    def __init__(
        self,
        rows: UnlearningRows,
        method: GradientMethod,
        adversary: Adversary,
        plan: BatchPlan,
        *,
        layers: tuple[int, ...],
        device: torch.device,
        gradients: Gradients,
    ) -> None:
        """
        Args:
            layers: whose states the method reads.
            device: of the policy's weights.
        """
        self._rows, self._method, self._adversary, self._plan = rows, method, adversary, plan
        self._layers, self._device, self._gradients = layers, device, gradients

    def of_step(self, step: int) -> list[MicroBatch]:
        """Returns this rank's micro-batches; with gradients apart, those of forget rows come first."""
        rows, plan = self._rows, self._plan
        start, n = step * plan.global_batch, len(rows.forget)
        forget = rows_of_stream(plan.seed, "forget", n, start, plan.global_batch)
        paired: dict[int, int] = {}
        if rows.paired:
            # A row that comes twice in one batch keeps the answer of its first place.
            for place, i in enumerate(forget):
                paired.setdefault(i, rows.paired_index(i, (start + place) // n, plan.seed))
        retain = []
        if self._method.retain_terms:
            count = plan.retain_rows
            retain = rows_of_stream(plan.seed, "retain", len(rows.retain), step * count, count)
        own, others = (rows.forget, forget), (rows.paired, [paired[i] for i in forget] if paired else [])
        answers = _read(self._forget_sources(own, others), forget)
        kept = _read([(source, retain) for source in self._retain_sources()], retain)
        whole = GlobalBatch(
            step,
            answers,
            paired,
            kept,
            Counts.of([answers[i][0] for i in forget]),
            Counts.of([kept[i][0] for i in retain]),
        )
        parts = [_part(forget, answers), _part(retain, kept)]
        chunks: list[tuple[list[int], ...]]
        if self._gradients is Gradients.together:
            chunks = self._cut(parts)
        else:
            chunks = [(forget, []) for (forget,) in self._cut(parts[:1])]
            chunks += [([], retain) for (retain,) in self._cut(parts[1:])] if retain else []
        return [self._micro_batch(whole, f, r, first=number == 0) for number, (f, r) in enumerate(chunks)]

    def _cut(self, parts: Sequence[Part]) -> list[tuple[list[int], ...]]:
        """Cuts rows into this rank's forwards."""
        plan = self._plan
        return micro_batches(parts, plan.split, plan.ranks.rank, plan.ranks.world)

    def draw_prompts(self, part: str, n: int, step: int) -> Batch:
        """Draws n rows of "forget" or "retain" by (seed, step), for an adversary that reads states at prompts."""
        rows = self._rows.forget if part == "forget" else self._rows.retain
        order = draws.order(len(rows), self._plan.seed, "prompts", part, step)[:n].tolist()
        return collate([rows[i] for i in order], self._plan.pad_id).to(self._device)

    def _forget_sources(self, own: Source, others: Source) -> list[Source]:
        """Returns what forget rows are run as: their responses, refusals, or responses and paired answers."""
        needs = self._method.needs
        if needs.answer is Answer.refusal:
            return [others]
        return [own] if needs.pairs is Pairs.none else [own, others]

    def _retain_sources(self) -> list[Sequence[Encoded]]:
        paired = any(term.paired for term in self._method.retain_terms)
        return [self._rows.retain, self._rows.retain_paired] if paired else [self._rows.retain]

    def _request(self, answers: Sequence[Sequence[Encoded]], retain: Sequence[Sequence[Encoded]]) -> ForwardRequest:
        """Builds what the forward is asked for. `answers`, `retain`: the rows of each part."""
        asked = [
            *zip(forget_parts(self._method), answers, strict=bool(answers)),
            *zip(retain_parts(self._method), retain, strict=bool(retain)),
        ]
        parts = (
            dataclasses.replace(part, rows=len(rows), tokens=sum(row.tokens for row in rows)) for part, rows in asked
        )
        return ForwardRequest(tuple(parts), self._layers)

    def _micro_batch(self, whole: GlobalBatch, forget: list[int], retain: list[int], *, first: bool) -> MicroBatch:
        """Builds one micro-batch.

        Args:
            whole: the global batch.
            forget: indices of its forget rows.
            retain: indices of its retain rows.
            first: whether it is this rank's first micro-batch in the step.
        """
        pad_id, adversary, device = self._plan.pad_id, self._adversary, self._device
        answers = _by_answer(whole.answers, forget)
        kept = _by_answer(whole.retain, retain)
        batch = collate([row for part in (*answers, *kept) for row in part], pad_id)
        # Every answer to a forget prompt gets the perturbation of its own forget row; retain rows never get one.
        as_forget_row, perturbed = [-1] * (len(kept) * len(retain)), None
        if forget:
            perturbed = collate(read_items(self._rows.forget, forget), pad_id)
            as_forget_row = self._perturbed_rows(whole.step, perturbed.row_ids) * len(answers) + as_forget_row
            if not adversary.perturbs_equal_openings_equally:
                perturbed = dataclasses.replace(perturbed, prefix_group=tuple(range(len(forget))))
            perturbed = pinned(perturbed, device)
        groups = _prefix_groups(as_forget_row, adversary.perturbs_equal_openings_equally)
        return MicroBatch(
            step=whole.step,
            forget=forget,
            paired=[whole.paired[i] for i in forget] if whole.paired else [],
            forget_parts=len(answers),
            perturbed=perturbed,
            batch=pinned(dataclasses.replace(batch, prefix_group=groups), device),
            request=self._request(answers, kept),
            perturbed_as_forget_row=torch.tensor(as_forget_row, dtype=torch.int64),
            forget_counts=whole.forget_counts,
            retain_counts=whole.retain_counts,
            measures_gain=first and adversary.p > 0 and whole.step % GAIN_EVERY == 0,
        )

    def _perturbed_rows(self, step: int, row_ids: Sequence[str]) -> list[int]:
        """Returns for each row its own index if the adversary perturbs it in this step, otherwise -1."""
        p, seed = self._adversary.p, self._plan.seed
        return [i if draws.uniform(seed, "mask", step, row) < p else -1 for i, row in enumerate(row_ids)]


def _read(sources: Sequence[Source], rows: Sequence[int]) -> dict[int, list[Encoded]]:
    """Reads the sequences of each row, one from each source."""
    read = [read_items(source, indices) for source, indices in sources]
    return {row: [answers[place] for answers in read] for place, row in enumerate(rows)}


def _part(indices: list[int], answers: dict[int, list[Encoded]]) -> Part:
    lengths = [max(len(answer.ids) for answer in answers[i]) for i in indices]
    return Part(indices, lengths, len(answers[indices[0]]) if indices else 1)


def _by_answer(answers: dict[int, list[Encoded]], indices: Sequence[int]) -> list[list[Encoded]]:
    """Returns the first answers of the rows, then their second answers."""
    return [list(part) for part in zip(*(answers[i] for i in indices), strict=True)]


def _prefix_groups(perturbed_as_forget_row: Sequence[int], equal_openings_equally: bool) -> tuple[int, ...]:
    """Returns the group of each row; rows of one group may compute a common opening together.

    Rows that are left alone are one group. Perturbed rows are one group if the adversary perturbs equal openings
    equally; otherwise those that get the perturbation of the same forget row are.
    """
    return tuple(0 if row < 0 else 1 if equal_openings_equally else 2 + row for row in perturbed_as_forget_row)
