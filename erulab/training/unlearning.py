"""The unlearning objective: method, reward, adversary and retain term in one forward per micro-batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from erulab import draws
from erulab.adversaries.base import Adversary
from erulab.data.arrow_sequence import read_items
from erulab.methods.base import ForgetRows, GradientMethod, Margin, Normalizer, Pairs, Retain, RowNLL, Trains
from erulab.models.policy import Policy, Reference, reference_states
from erulab.rewards.base import Reward
from erulab.tokens.batch import Batch, Encoded, collate
from erulab.training.batches import Part, micro_batches, rows_of_stream
from erulab.training.objective import BatchPlan, Forward, Sums, pinned, row_totals
from erulab.training.reference import ReferenceTable

# Steps between two measurements of the adversary's effect, each of which takes two more forwards of one micro-batch.
GAIN_EVERY = 10


@dataclass(frozen=True)
class UnlearningRows:
    """Encoded rows of one unlearning. `paired[i]` is the paired answer or refusal of `forget[i]`, where one is used."""

    forget: Sequence[Encoded]
    paired: Sequence[Encoded]
    retain: Sequence[Encoded]


@dataclass(frozen=True)
class Terms:
    """The terms of `forget_weight * L_forget + retain_weight * L_retain`; the adversary perturbs the forget rows."""

    method: GradientMethod
    reward: Reward | None
    adversary: Adversary
    retain: Retain
    forget_weight: float
    retain_weight: float


@dataclass(frozen=True)
class References:
    """The model before unlearning, as far as the terms compare the policy with it."""

    table: ReferenceTable | None = None  # its NLL of forget rows and paired answers, for rewards
    frozen: Reference | None = None  # the model itself, for retain=kl


@dataclass(frozen=True)
class GlobalBatch:
    """The rows of one optimizer step, over all ranks."""

    step: int
    answers: dict[int, list[Encoded]]  # forget row -> the sequences that it is run as
    retain: dict[int, Encoded]
    forget_count: int  # tokens or rows, whichever the method's losses are divided by
    retain_count: int  # tokens


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward: forget rows, their paired answers, retain rows; and the counts losses are divided by."""

    step: int
    forget: Sequence[int]
    answers: int  # sequences per forget row
    perturbed: Batch  # the forget rows with their own responses, as an adversary sees them
    batch: Batch
    # (rows of the batch,) int64: index of the forget row whose perturbation this row gets; -1: left alone.
    perturbed_as_forget_row: torch.Tensor
    forget_count: int  # tokens or rows of the global batch
    retain_count: int  # tokens of the global batch
    measures_gain: bool  # whether the adversary's effect is measured on these rows

    @property
    def retain_rows(self) -> int:
        return len(self.batch.row_ids) - self.answers * len(self.forget)


class UnlearningObjective:
    """`forget_weight * L_forget + retain_weight * L_retain`, each over its own count in the global batch.

    Forget rows, their paired answers and retain rows run in one forward; the adversary's hooks act on the first two.
    `assembly.build_objective` makes one from the options of a run.
    """

    def __init__(
        self, rows: UnlearningRows, policy: Policy, terms: Terms, references: References, plan: BatchPlan
    ) -> None:
        self._rows, self._policy, self._terms = rows, policy, terms
        self._references, self._plan = references, plan

    def micro_batches(self, step: int) -> Sequence[MicroBatch]:
        rows, plan, terms = self._rows, self._plan, self._terms
        size = plan.global_batch
        forget = rows_of_stream(plan.seed, "forget", len(rows.forget), step * size, size)
        retain = []
        if terms.retain is not Retain.none:
            retain = rows_of_stream(plan.seed, "retain", len(rows.retain), step * size, size)
        answers = self._read_answers(forget)
        kept = dict(zip(retain, read_items(rows.retain, retain), strict=True))
        by_tokens = terms.method.normalizer is Normalizer.tokens
        # A method that sums over tokens trains on one answer: the forgotten one, or the refusal in its place.
        forget_count = sum(answers[i][0].tokens for i in forget) if by_tokens else len(forget)
        whole = GlobalBatch(step, answers, kept, forget_count, sum(kept[i].tokens for i in retain))
        lengths = [max(len(answer.ids) for answer in answers[i]) for i in forget]
        parts = (
            Part(forget, lengths, len(answers[forget[0]])),
            Part(retain, [len(kept[i].ids) for i in retain]),
        )
        micros = micro_batches(parts, plan.split, plan.ranks.rank, plan.ranks.world)
        return [self._micro_batch(whole, f, r, first=number == 0) for number, (f, r) in enumerate(micros)]

    def start_step(self, step: int, total: int) -> None:
        adversary = self._terms.adversary
        if adversary.p > 0:
            with self._policy.ledger.adversary():
                adversary.prepare(step, total, self._policy, self._draw_prompts)

    @contextmanager
    def micro_step(self, forward: Forward, micro: MicroBatch) -> Iterator[tuple[torch.Tensor, Sums]]:
        terms, frozen = self._terms, self._references.frozen
        device = self._policy.device
        n, answers = len(micro.forget), micro.answers
        batch, perturbed = micro.batch.to(device), micro.perturbed.to(device)
        gain: Sums = {}
        if micro.measures_gain:
            with self._policy.ledger.adversary():
                gain = self._adversary_gain(perturbed, micro.step)
        # Before the adversary's hooks are there: the reference is never perturbed.
        reference = None if frozen is None else reference_states(frozen, batch, micro.retain_rows)
        with ExitStack() as stack:
            # The search for a perturbation is counted as the adversary's cost, the forward under it as training's.
            with self._policy.ledger.adversary():
                stack.enter_context(
                    terms.adversary.attach(
                        self._policy, perturbed, micro.perturbed_as_forget_row.to(device), micro.step
                    )
                )
            nll, kl_tokens = forward(batch, reference)
            totals, tokens = row_totals(nll, batch.supervised)
            by_answer = [RowNLL(totals[i * n : (i + 1) * n], tokens[i * n : (i + 1) * n]) for i in range(answers)]
            losses, row_metrics = terms.method.losses(self._forget_rows(micro.forget, by_answer), self._margin())
            forget_loss = losses.sum() / micro.forget_count
            loss = terms.forget_weight * forget_loss
            sums: Sums = {f"method/{name}": values.detach().sum() for name, values in row_metrics.items()}
            if micro.retain_rows:
                retain_sum = totals[answers * n :].sum() if kl_tokens is None else kl_tokens.sum()
                retain_loss = retain_sum / micro.retain_count
                loss = loss + terms.retain_weight * retain_loss
                sums["retain_loss"] = retain_loss.detach()
            sums |= {"loss": loss.detach(), "forget_loss": forget_loss.detach(), **gain}
            yield loss, sums

    def end_step(self, sums: dict[str, float]) -> dict[str, float]:
        reward, adversary, plan = self._terms.reward, self._terms.adversary, self._plan
        metrics = {k: v / plan.global_batch if k.startswith("method/") else v for k, v in sums.items()}
        drop, rows = metrics.pop("gain/drop", 0.0), metrics.pop("gain/rows", 0.0)
        if reward is not None:
            reward.end_step(plan.ranks.all_reduce_sum)
            metrics |= {f"reward/{name}": value for name, value in reward.metrics().items()}
        if adversary.p > 0:
            metrics |= {f"adversary/{name}": value for name, value in adversary.metrics().items()}
        if rows:
            metrics["adversary/gain"] = drop / rows
        return metrics

    def state_dict(self) -> dict[str, torch.Tensor]:
        reward = self._terms.reward
        state = {f"adversary.{name}": value for name, value in self._terms.adversary.state_dict().items()}
        if reward is not None:
            values = reward.state_dict()
            state |= {f"reward.{k}": torch.tensor(v, dtype=torch.float64) for k, v in values.items()}
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        parts: dict[str, dict[str, torch.Tensor]] = {"adversary": {}, "reward": {}}
        for key, value in state.items():
            part, name = key.split(".", 1)
            parts[part][name] = value
        self._terms.adversary.load_state_dict(parts["adversary"])
        if self._terms.reward is not None:
            self._terms.reward.load_state_dict({name: float(value) for name, value in parts["reward"].items()})

    def _read_answers(self, indices: Sequence[int]) -> dict[int, list[Encoded]]:
        """Maps each forget row to what it is run as: its response, a refusal, or response and paired answer."""
        rows, method = self._rows, self._terms.method
        sources = [rows.paired] if method.trains is Trains.refusal else [rows.forget]
        if method.trains is not Trains.refusal and method.pairs is not Pairs.none:
            sources.append(rows.paired)
        read = [read_items(source, indices) for source in sources]
        return {i: [answers[place] for answers in read] for place, i in enumerate(indices)}

    def _micro_batch(self, whole: GlobalBatch, forget: list[int], retain: list[int], *, first: bool) -> MicroBatch:
        """Builds one micro-batch.

        Args:
            whole: the global batch.
            forget: indices of its forget rows.
            retain: indices of its retain rows.
            first: whether it is this rank's first micro-batch in the step.
        """
        pad_id, adversary, device = self._plan.pad_id, self._terms.adversary, self._policy.device
        count = len(whole.answers[forget[0]])
        perturbed = collate(read_items(self._rows.forget, forget), pad_id)
        answers = [whole.answers[i][k] for k in range(count) for i in forget]
        batch = collate(answers + [whole.retain[i] for i in retain], pad_id)
        # Every answer to a forget prompt gets the perturbation of its own forget row; retain rows never get one.
        as_forget_row = self._perturbed_rows(whole.step, perturbed.row_ids) * count + [-1] * len(retain)
        if not adversary.perturbs_equal_openings_equally:
            perturbed = dataclasses.replace(perturbed, prefix_group=tuple(range(len(forget))))
        groups = _prefix_groups(as_forget_row, adversary.perturbs_equal_openings_equally)
        return MicroBatch(
            step=whole.step,
            forget=forget,
            answers=count,
            perturbed=pinned(perturbed, device),
            batch=pinned(dataclasses.replace(batch, prefix_group=groups), device),
            perturbed_as_forget_row=torch.tensor(as_forget_row, dtype=torch.int64),
            forget_count=whole.forget_count,
            retain_count=whole.retain_count,
            measures_gain=first and adversary.p > 0 and whole.step % GAIN_EVERY == 0,
        )

    def _forget_rows(self, forget: Sequence[int], by_answer: list[RowNLL]) -> ForgetRows:
        """Returns what the method compares: NLL of forget rows and paired answers, under policy and reference."""
        table = self._references.table
        paired = by_answer[1] if len(by_answer) > 1 else None
        if table is None:
            return ForgetRows(by_answer[0], paired=paired)
        total = by_answer[0].total
        reference = RowNLL(table.forget[list(forget)].to(total), by_answer[0].tokens)
        if paired is None:
            return ForgetRows(by_answer[0], reference)
        paired_reference = RowNLL(table.paired[list(forget)].to(total), paired.tokens)
        return ForgetRows(by_answer[0], reference, paired, paired_reference)

    def _margin(self) -> Margin | None:
        reward = self._terms.reward
        if reward is None:
            return None
        return lambda x_ref, depth: reward.margin(x_ref, depth, self._plan.ranks.gather)

    def _perturbed_rows(self, step: int, row_ids: Sequence[str]) -> list[int]:
        """Returns for each row its own index if the adversary perturbs it in this step, otherwise -1."""
        p, seed = self._terms.adversary.p, self._plan.seed
        return [i if draws.uniform(seed, "mask", step, row) < p else -1 for i, row in enumerate(row_ids)]

    def _adversary_gain(self, forget: Batch, step: int) -> Sums:
        """Measures by how much the per-token NLL of forget rows falls when all are perturbed: sum, number of rows."""
        every = torch.arange(len(forget.row_ids), device=self._policy.device)
        with torch.no_grad():
            clean = self._policy.row_nll(forget) / forget.tokens
        with self._terms.adversary.attach(self._policy, forget, every, step), torch.no_grad():
            perturbed = self._policy.row_nll(forget) / forget.tokens
        return {"gain/drop": (clean - perturbed).sum(), "gain/rows": torch.tensor(float(len(every)))}

    def _draw_prompts(self, part: str, n: int, step: int) -> Batch:
        """Draws n rows of "forget" or "retain" by (seed, step), for an adversary that reads states at prompts."""
        rows = self._rows.forget if part == "forget" else self._rows.retain
        order = draws.order(len(rows), self._plan.seed, "prompts", part, step)[:n].tolist()
        return collate([rows[i] for i in order], self._plan.pad_id).to(self._policy.device)


def _prefix_groups(perturbed_as_forget_row: Sequence[int], equal_openings_equally: bool) -> tuple[int, ...]:
    """Returns the group of each row; rows of one group may compute a common opening together.

    Rows that are left alone are one group. Perturbed rows are one group if the adversary perturbs equal openings
    equally; otherwise those that get the perturbation of the same forget row are.
    """
    return tuple(0 if row < 0 else 1 if equal_openings_equally else 2 + row for row in perturbed_as_forget_row)
