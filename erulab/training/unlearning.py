"""The unlearning objective: method, reward, adversary and retain term on one forward a micro-batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from erulab import draws
from erulab.adversaries.base import Adversary
from erulab.data.encoding import Batch, Encoded, collate
from erulab.methods.base import ForgetRows, Margin, Method, Normalizer, Pairs, Retain, RowNLL, Trains
from erulab.models.policy import Policy
from erulab.ranks import Ranks
from erulab.rewards.base import Reward
from erulab.training.batches import micro_batches, stream
from erulab.training.objective import Forward, Sums, row_totals
from erulab.training.reference import ReferenceTable

# How often the adversary's effect is measured: two more forwards of one micro-batch.
GAIN_EVERY = 10


@dataclass(frozen=True)
class UnlearningRows:
    """Encoded rows of one unlearning. `others[i]` is the paired answer or refusal of `forget[i]`, where used."""

    forget: Sequence[Encoded]
    others: Sequence[Encoded]
    retain: Sequence[Encoded]


class UnlearningObjective:
    """`forget_weight * L_forget + retain_weight * L_retain`, each over its own count in the global batch.

    Forget rows, their paired answers and retain rows run in one forward; the adversary's hooks act on the first two.
    """

    def __init__(
        self, rows: UnlearningRows, method: Method, reward: Reward | None, adversary: Adversary, *,
        forget_weight: float, retain: Retain, retain_weight: float, references: ReferenceTable | None,
        frozen: Policy | None, policy: Policy, global_batch: int, micro_batch: int, seed: int, pad_id: int,
        ranks: Ranks,
    ) -> None:  # fmt: skip
        """`references` serves rewards that need the model before unlearning; `frozen` is that model, for retain kl."""
        self._rows, self._method, self._reward, self._adversary = rows, method, reward, adversary
        self._forget_weight, self._retain, self._retain_weight = forget_weight, retain, retain_weight
        self._references, self._frozen, self._policy = references, frozen, policy
        self._global_batch, self._micro_batch = global_batch, micro_batch
        self._seed, self._pad_id, self._ranks = seed, pad_id, ranks
        self._step = 0
        self._forget_count = self._retain_count = 1
        self._gain: tuple[float, float] = (0.0, 0.0)  # this step's sum of NLL drops and its rows
        self._measure_gain = False

    def start_step(self, step: int, total: int) -> Sequence[tuple[list[int], list[int]]]:
        rows, size, world = self._rows, self._global_batch, self._ranks.world
        self._step = step
        forget = stream(self._seed, "forget", len(rows.forget), step * size, size)
        retain = []
        if self._retain is not Retain.none:
            retain = stream(self._seed, "retain", len(rows.retain), step * size, size)
        trained = rows.others if self._method.trains is Trains.refusal else rows.forget
        by_tokens = self._method.normalizer is Normalizer.tokens
        self._forget_count = sum(trained[i].tokens for i in forget) if by_tokens else len(forget)
        self._retain_count = sum(rows.retain[i].tokens for i in retain)
        if self._adversary.p > 0:
            self._adversary.prepare(step, total, self._policy, self._draw)
        self._gain, self._measure_gain = (0.0, 0.0), self._adversary.p > 0 and step % GAIN_EVERY == 0
        rank = self._ranks.rank
        forget_micros = micro_batches(forget, rows.forget, self._micro_batch, rank, world)
        retain_micros = micro_batches(retain, rows.retain, self._micro_batch, rank, world)
        return list(zip(forget_micros, retain_micros or [[] for _ in forget_micros], strict=True))

    @contextmanager
    def micro_step(self, forward: Forward, micro: tuple[list[int], list[int]]) -> Iterator[tuple[torch.Tensor, Sums]]:
        forget, retain = micro
        n = len(forget)
        attacked = self._collate([self._rows.forget[i] for i in forget])
        batch, answers = self._forward_batch(forget, retain)
        mask = self._mask(attacked.row_ids)
        # Every answer to a forget prompt perturbs as its own forget row; retain rows never do.
        rows = torch.cat([mask.repeat(answers), mask.new_full((len(retain),), -1)])
        if self._measure_gain:
            self._measure_gain = False
            self._gain = self._adversary_gain(attacked)
        with self._adversary.attach(self._policy, attacked, rows, self._step):
            kl = self._retain is Retain.kl
            nll, kl_tokens = forward(batch, self._frozen if kl else None, len(retain) if kl else 0)
            totals, tokens = row_totals(nll, batch.supervised)
            by_answer = [RowNLL(totals[i * n : (i + 1) * n], tokens[i * n : (i + 1) * n]) for i in range(answers)]
            losses, row_metrics = self._method.losses(self._forget_rows(forget, by_answer), self._margin())
            forget_loss = losses.sum() / self._forget_count
            loss = self._forget_weight * forget_loss
            sums: Sums = {f"method/{name}": values.detach().sum() for name, values in row_metrics.items()}
            if retain:
                retain_sum = totals[answers * n :].sum() if kl_tokens is None else kl_tokens.sum()
                retain_loss = retain_sum / self._retain_count
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

    def _forward_batch(self, forget: list[int], retain: list[int]) -> tuple[Batch, int]:
        """The micro-batch's rows, and how many answers each forget prompt has among them."""
        rows = self._rows
        if self._method.trains is Trains.refusal:
            answers = [[rows.others[i] for i in forget]]
        else:
            answers = [[rows.forget[i] for i in forget]]
            if self._method.pairs is not Pairs.none:
                answers.append([rows.others[i] for i in forget])
        encoded = [row for answer in answers for row in answer] + [rows.retain[i] for i in retain]
        return self._collate(encoded), len(answers)

    def _forget_rows(self, forget: list[int], by_answer: list[RowNLL]) -> ForgetRows:
        other = by_answer[1] if len(by_answer) > 1 else None
        if self._references is None:
            return ForgetRows(by_answer[0], other=other)
        total = by_answer[0].total
        reference = RowNLL(self._references.forget[forget].to(total), by_answer[0].tokens)
        if other is None:
            return ForgetRows(by_answer[0], reference)
        other_reference = RowNLL(self._references.others[forget].to(total), other.tokens)
        return ForgetRows(by_answer[0], reference, other, other_reference)

    def _margin(self) -> Margin | None:
        if self._reward is None:
            return None
        reward = self._reward
        return lambda x_ref, depth: reward.margin(x_ref, depth, self._ranks.gather)

    def _mask(self, row_ids: Sequence[str]) -> torch.Tensor:
        """(rows,) int64: the row's own index where the adversary acts on it this step, -1 elsewhere."""
        p = self._adversary.p
        hit = [i if draws.uniform(self._seed, "mask", self._step, row) < p else -1 for i, row in enumerate(row_ids)]
        return torch.tensor(hit, dtype=torch.int64, device=self._policy.device)

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
        order = draws.permutation(len(rows), self._seed, "prompts", part, step)
        return self._collate([rows[i] for i in order[:n]])

    def _collate(self, rows: Sequence[Encoded]) -> Batch:
        return collate(rows, self._pad_id).to(self._policy.device)
