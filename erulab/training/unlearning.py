"""The unlearning objective: method, reward, adversary and retain term on one forward a micro-batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from erulab import draws
from erulab.adversaries.base import Adversary
from erulab.data.arrow_sequence import read_items
from erulab.methods.base import ForgetRows, Margin, Method, Normalizer, Pairs, Retain, RowNLL, Trains
from erulab.models.policy import Policy, Reference, reference_states
from erulab.ranks import Ranks
from erulab.rewards.base import Reward
from erulab.tokens.batch import Batch, Encoded, collate
from erulab.training.batches import Part, Split, micro_batches, stream
from erulab.training.objective import Forward, Sums, ready, row_totals
from erulab.training.reference import ReferenceTable

# How often the adversary's effect is measured: two more forwards of one micro-batch.
GAIN_EVERY = 10


@dataclass(frozen=True)
class UnlearningRows:
    """Encoded rows of one unlearning. `others[i]` is the paired answer or refusal of `forget[i]`, where used."""

    forget: Sequence[Encoded]
    others: Sequence[Encoded]
    retain: Sequence[Encoded]


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward: forget rows, their paired answers, retain rows; and the counts losses are divided by."""

    forget: Sequence[int]
    answers: int  # sequences for each forget row
    attacked: Batch  # the forget rows with their own responses, as an adversary sees them
    batch: Batch
    attacked_as: torch.Tensor  # (rows of the batch,) int64: as which forget row the adversary perturbs it, or -1
    forget_count: int  # tokens or rows of the global batch
    retain_count: int  # tokens of the global batch

    @property
    def retain_rows(self) -> int:
        return len(self.batch.row_ids) - self.answers * len(self.forget)


class UnlearningObjective:
    """`forget_weight * L_forget + retain_weight * L_retain`, each over its own count in the global batch.

    Forget rows, their paired answers and retain rows run in one forward; the adversary's hooks act on the first two.
    """

    def __init__(
        self,
        rows: UnlearningRows,
        method: Method,
        reward: Reward | None,
        adversary: Adversary,
        *,
        forget_weight: float,
        retain: Retain,
        retain_weight: float,
        references: ReferenceTable | None,
        frozen: Reference | None,
        policy: Policy,
        global_batch: int,
        split: Split,
        seed: int,
        pad_id: int,
        ranks: Ranks,
    ) -> None:
        """`references` serves rewards that need the model before unlearning; `frozen` is that model, for retain kl."""
        self._rows, self._method, self._reward, self._adversary = rows, method, reward, adversary
        self._forget_weight, self._retain, self._retain_weight = forget_weight, retain, retain_weight
        self._references, self._frozen, self._policy = references, frozen, policy
        self._global_batch, self._split = global_batch, split
        self._seed, self._pad_id, self._ranks = seed, pad_id, ranks
        self._step = 0
        self._gain: tuple[float, float] = (0.0, 0.0)  # this step's sum of NLL drops and its rows
        self._measure_gain = False

    def micro_batches(self, step: int) -> Sequence[MicroBatch]:
        rows, size = self._rows, self._global_batch
        forget = stream(self._seed, "forget", len(rows.forget), step * size, size)
        retain = []
        if self._retain is not Retain.none:
            retain = stream(self._seed, "retain", len(rows.retain), step * size, size)
        answers = self._read_answers(forget)
        kept = dict(zip(retain, read_items(rows.retain, retain), strict=True))
        by_tokens = self._method.normalizer is Normalizer.tokens
        # A method that sums over tokens trains on one answer: the forgotten one, or the refusal in its place.
        forget_count = sum(answers[i][0].tokens for i in forget) if by_tokens else len(forget)
        retain_count = sum(kept[i].tokens for i in retain)
        lengths = [max(len(answer.ids) for answer in answers[i]) for i in forget]
        parts = (
            Part(forget, lengths, len(answers[forget[0]])),
            Part(retain, [len(kept[i].ids) for i in retain]),
        )
        micros = micro_batches(parts, self._split, self._ranks.rank, self._ranks.world)
        return [
            self._micro_batch(step, f, [kept[i] for i in r], answers, forget_count, retain_count) for f, r in micros
        ]

    def start_step(self, step: int, total: int) -> None:
        self._step = step
        if self._adversary.p > 0:
            with self._policy.ledger.adversary():
                self._adversary.prepare(step, total, self._policy, self._draw)
        self._gain, self._measure_gain = (0.0, 0.0), self._adversary.p > 0 and step % GAIN_EVERY == 0

    @contextmanager
    def micro_step(self, forward: Forward, micro: MicroBatch) -> Iterator[tuple[torch.Tensor, Sums]]:
        device = self._policy.device
        n, answers = len(micro.forget), micro.answers
        batch, attacked = micro.batch.to(device), micro.attacked.to(device)
        if self._measure_gain:
            self._measure_gain = False
            with self._policy.ledger.adversary():
                self._gain = self._adversary_gain(attacked)
        # Before the adversary's hooks are there: the reference is never perturbed.
        reference = None if self._frozen is None else reference_states(self._frozen, batch, micro.retain_rows)
        with ExitStack() as stack:
            with self._policy.ledger.adversary():  # a search is the adversary's, the forward under attack is not
                stack.enter_context(
                    self._adversary.attach(self._policy, attacked, micro.attacked_as.to(device), self._step)
                )
            nll, kl_tokens = forward(batch, reference)
            totals, tokens = row_totals(nll, batch.supervised)
            by_answer = [RowNLL(totals[i * n : (i + 1) * n], tokens[i * n : (i + 1) * n]) for i in range(answers)]
            losses, row_metrics = self._method.losses(self._forget_rows(micro.forget, by_answer), self._margin())
            forget_loss = losses.sum() / micro.forget_count
            loss = self._forget_weight * forget_loss
            sums: Sums = {f"method/{name}": values.detach().sum() for name, values in row_metrics.items()}
            if micro.retain_rows:
                retain_sum = totals[answers * n :].sum() if kl_tokens is None else kl_tokens.sum()
                retain_loss = retain_sum / micro.retain_count
                loss = loss + self._retain_weight * retain_loss
                sums["retain_loss"] = retain_loss.detach()
            sums |= {"loss": loss.detach(), "forget_loss": forget_loss.detach()}
            yield loss, sums

    def end_step(self, sums: dict[str, float]) -> dict[str, float]:
        metrics = {k: v / self._global_batch if k.startswith("method/") else v for k, v in sums.items()}
        if self._reward is not None:
            self._reward.end_step(self._ranks.all_reduce_sum)
            metrics |= {f"reward/{name}": value for name, value in self._reward.metrics().items()}
        if self._adversary.p > 0:
            metrics |= {f"adversary/{name}": value for name, value in self._adversary.metrics().items()}
            if self._step % GAIN_EVERY == 0:
                drop, count = self._ranks.all_reduce_sum(torch.tensor(self._gain, dtype=torch.float64)).tolist()
                if count:
                    metrics["adversary/gain"] = drop / count
        return metrics

    def state_dict(self) -> dict[str, torch.Tensor]:
        state = {f"adversary.{name}": value for name, value in self._adversary.state_dict().items()}
        if self._reward is not None:
            values = self._reward.state_dict()
            state |= {f"reward.{k}": torch.tensor(v, dtype=torch.float64) for k, v in values.items()}
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        parts: dict[str, dict[str, torch.Tensor]] = {"adversary": {}, "reward": {}}
        for key, value in state.items():
            part, name = key.split(".", 1)
            parts[part][name] = value
        self._adversary.load_state_dict(parts["adversary"])
        if self._reward is not None:
            self._reward.load_state_dict({name: float(value) for name, value in parts["reward"].items()})

    def _read_answers(self, indices: Sequence[int]) -> dict[int, list[Encoded]]:
        """Maps each forget row to its response, a refusal in its place, or both it and its paired answer."""
        sources = [self._rows.others] if self._method.trains is Trains.refusal else [self._rows.forget]
        if self._method.trains is not Trains.refusal and self._method.pairs is not Pairs.none:
            sources.append(self._rows.others)
        read = [read_items(source, indices) for source in sources]
        return {i: [answers[place] for answers in read] for place, i in enumerate(indices)}

    def _micro_batch(
        self,
        step: int,
        forget: list[int],
        retain: list[Encoded],
        answers: dict[int, list[Encoded]],
        forget_count: int,
        retain_count: int,
    ) -> MicroBatch:
        device, count = self._policy.device, len(answers[forget[0]])
        attacked = collate(read_items(self._rows.forget, forget), self._pad_id)
        batch = collate([answers[i][k] for k in range(count) for i in forget] + retain, self._pad_id)
        # Every answer to a forget prompt perturbs as its own forget row; retain rows never do.
        attacked_as = self._mask(step, attacked.row_ids) * count + [-1] * len(retain)
        if not self._adversary.alike:
            attacked = dataclasses.replace(attacked, prefix_group=tuple(range(len(forget))))
        return MicroBatch(
            forget,
            count,
            ready(attacked, device),
            ready(dataclasses.replace(batch, prefix_group=_groups(attacked_as, self._adversary.alike)), device),
            torch.tensor(attacked_as, dtype=torch.int64),
            forget_count,
            retain_count,
        )

    def _forget_rows(self, forget: Sequence[int], by_answer: list[RowNLL]) -> ForgetRows:
        other = by_answer[1] if len(by_answer) > 1 else None
        if self._references is None:
            return ForgetRows(by_answer[0], other=other)
        total = by_answer[0].total
        reference = RowNLL(self._references.forget[list(forget)].to(total), by_answer[0].tokens)
        if other is None:
            return ForgetRows(by_answer[0], reference)
        other_reference = RowNLL(self._references.others[list(forget)].to(total), other.tokens)
        return ForgetRows(by_answer[0], reference, other, other_reference)

    def _margin(self) -> Margin | None:
        if self._reward is None:
            return None
        reward = self._reward
        return lambda x_ref, depth: reward.margin(x_ref, depth, self._ranks.gather)

    def _mask(self, step: int, row_ids: Sequence[str]) -> list[int]:
        """For each row its own index where the adversary acts on it in this step, -1 elsewhere."""
        p = self._adversary.p
        return [i if draws.uniform(self._seed, "mask", step, row) < p else -1 for i, row in enumerate(row_ids)]

    def _adversary_gain(self, forget: Batch) -> tuple[float, float]:
        """Summed drop of the forget rows' per-token NLL under attack, and their number."""
        every = torch.arange(len(forget.row_ids), device=self._policy.device)
        with torch.no_grad():
            clean = self._policy.row_nll(forget) / forget.tokens
        with self._adversary.attach(self._policy, forget, every, self._step), torch.no_grad():
            attacked = self._policy.row_nll(forget) / forget.tokens
        return float((clean - attacked).sum()), float(len(every))

    def _draw(self, part: str, n: int, step: int) -> Batch:
        rows = self._rows.forget if part == "forget" else self._rows.retain
        order = draws.order(len(rows), self._seed, "prompts", part, step)[:n].tolist()
        return collate([rows[i] for i in order], self._pad_id).to(self._policy.device)


def _groups(attacked_as: Sequence[int], alike: bool) -> tuple[int, ...]:
    """Which rows may be computed together where they begin alike: those that are left alone, and, by adversary, all
    that are attacked or those that are attacked as the same row."""
    return tuple(0 if row < 0 else 1 if alike else 2 + row for row in attacked_as)
