"""The unlearning objective: method, reward, adversary and retain terms in one forward per micro-batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch

from erulab.adversaries.base import Adversary
from erulab.adversaries.weights import WeightAdversary
from erulab.methods.base import GradientMethod, Margin
from erulab.methods.needs import Step
from erulab.methods.seen import ForgetRows, RetainRows, RowNLL, Seen
from erulab.models.forwards import PartShown, Reference, ReferenceView, view_reference
from erulab.models.policy import Policy
from erulab.models.request import PartRequest
from erulab.rewards.base import Reward
from erulab.tokens.batch import Batch
from erulab.training.engine import Engine
from erulab.training.objective import BatchPlan, Forward, Sums, accumulate_together
from erulab.training.reference import ReferenceTable
from erulab.training.separate_gradients import SeparateGradients
from erulab.training.unlearning_batches import Gradients, MicroBatch, UnlearningBatches, UnlearningRows


@dataclass(frozen=True)
class Terms:
    """The terms of `forget_weight * L_forget + retain_weight * L_retain`; the adversary perturbs the forget rows."""

    method: GradientMethod
    reward: Reward | None
    adversary: Adversary
    separate: SeparateGradients | None = None  # None: one gradient of both terms


@dataclass(frozen=True)
class References:
    """The model before unlearning, as far as the terms compare the policy with it."""

    table: ReferenceTable | None = None  # its NLL of forget rows and paired answers, for rewards
    frozen: Reference | None = None  # the model itself, for terms that compare states or logits


class UnlearningObjective:
    """`forget_weight * L_forget + retain_weight * L_retain`, each over its own count in the global batch.

    Forget rows, their paired answers and retain rows run in one forward; the adversary's hooks act on the first two.
    `assembly.build_objective` makes one from the options of a run.
    """

    def __init__(
        self, rows: UnlearningRows, policy: Policy, terms: Terms, references: References, plan: BatchPlan
    ) -> None:
        self._policy, self._terms, self._references, self._plan = policy, terms, references, plan
        self._batches = UnlearningBatches(
            rows,
            terms.method,
            terms.adversary,
            plan,
            layers=terms.method.layers(len(policy.blocks)),
            device=policy.device,
            gradients=Gradients.together if terms.separate is None else Gradients.apart,
        )
        self._step = Step(0, 1)

    def micro_batches(self, step: int) -> Sequence[MicroBatch]:
        return self._batches.of_step(step)

    def start_step(self, step: int, total: int) -> None:
        self._step = Step(step, total)
        adversary = self._terms.adversary
        if adversary.p > 0:
            with self._policy.ledger.adversary():
                adversary.prepare(step, total, self._policy, self._batches.draw_prompts)

    def accumulate(self, engine: Engine, micros: Sequence[MicroBatch]) -> Sums:
        separate = self._terms.separate
        if separate is None:
            return accumulate_together(engine, micros, self.micro_step)
        return separate.accumulate(engine, micros, self.micro_step, self._step.number)

    @contextmanager
    def micro_step(self, forward: Forward, micro: MicroBatch) -> Iterator[tuple[torch.Tensor, Sums]]:
        device = self._policy.device
        batch = micro.batch.to(device)
        perturbed = None if micro.perturbed is None else micro.perturbed.to(device)
        sums: Sums = {}
        if micro.measures_gain and perturbed is not None:
            with self._policy.ledger.adversary():
                sums |= self._adversary_gain(perturbed, micro.step)
        # Before the adversary's hooks are there: the reference is never perturbed.
        reference = None
        if self._references.frozen is not None:
            reference = view_reference(self._references.frozen, batch, micro.request)
        with ExitStack() as stack:
            if perturbed is not None:
                # The search for a perturbation is counted as the adversary's cost, the forward under it as training's.
                with self._policy.ledger.adversary():
                    stack.enter_context(
                        self._terms.adversary.attach(
                            self._policy, perturbed, micro.perturbed_as_forget_row.to(device), micro.step
                        )
                    )
            shown = forward(batch, micro.request, reference)
            forget_weight, retain_weight = self._terms.method.weights(self._step)
            parts = _seen_parts(shown, micro, batch)
            losses = []
            if micro.forget:
                forget_loss = self._forget_loss(micro, parts, reference, sums)
                losses.append(forget_weight * forget_loss)
            if len(parts) > micro.forget_parts:
                retain_loss = self._retain_loss(micro, parts, reference, sums)
                losses.append(retain_weight * retain_loss)
            loss = losses[0] if len(losses) == 1 else losses[0] + losses[1]
            yield loss, sums | {"loss": loss.detach()}

    def _forget_loss(
        self, micro: MicroBatch, parts: Sequence[Seen], reference: ReferenceView | None, sums: Sums
    ) -> torch.Tensor:
        """Returns this micro-batch's share of L_forget; adds it and the method's quantities to `sums`."""
        method = self._terms.method
        rows = self._forget_rows(micro, parts, reference)
        losses, quantities = method.losses(rows, self._margin(), self._step)
        loss = losses.sum() / micro.forget_counts.by(method.needs.normalizer)
        sums |= {f"method/{name}": values.detach().sum() for name, values in quantities.items()}
        sums["forget_loss"] = loss.detach()
        return loss

    def _retain_loss(
        self, micro: MicroBatch, parts: Sequence[Seen], reference: ReferenceView | None, sums: Sums
    ) -> torch.Tensor:
        """Returns this micro-batch's share of L_retain; adds it, and each of several terms, to `sums`."""
        first = micro.forget_parts
        states = {} if reference is None else reference.states.get(first, {})
        rows = RetainRows(parts[first], parts[first + 1] if len(parts) > first + 1 else None, states)
        terms = self._terms.method.retain_terms
        loss = None
        for term in terms:
            value = term.loss(rows).sum() / micro.retain_counts.by(term.normalizer)
            if len(terms) > 1:
                sums[f"retain_loss/{term.name}"] = value.detach()
            value = value if term.weight == 1 else term.weight * value
            loss = value if loss is None else loss + value
        assert loss is not None
        if rows.policy.nll is not None and not any(term.name == "nll" for term in terms):
            sums["retain_nll"] = rows.policy.nll.detach().sum() / micro.retain_counts.tokens
        sums["retain_loss"] = loss.detach()
        return loss

    def end_step(self, sums: dict[str, float]) -> dict[str, float]:
        reward, adversary, plan = self._terms.reward, self._terms.adversary, self._plan
        metrics = {k: v / plan.global_batch if k.startswith("method/") else v for k, v in sums.items()}
        drop, rows = metrics.pop("gain/drop", 0.0), metrics.pop("gain/rows", 0.0)
        metrics |= {f"method/{name}": v for name, v in self._terms.method.end_step(metrics, self._step).items()}
        if reward is not None:
            reward.end_step(plan.ranks.all_reduce_sum)
            metrics |= {f"reward/{name}": value for name, value in reward.metrics().items()}
        if adversary.p > 0 or (isinstance(adversary, WeightAdversary) and adversary.moves):
            metrics |= {f"adversary/{name}": value for name, value in adversary.metrics().items()}
        if rows:
            metrics["adversary/gain"] = drop / rows
        return metrics

    def state_dict(self) -> dict[str, torch.Tensor]:
        reward, separate = self._terms.reward, self._terms.separate
        state = {f"adversary.{name}": value for name, value in self._terms.adversary.state_dict().items()}
        state |= {f"method.{name}": value for name, value in self._terms.method.state_dict().items()}
        if separate is not None:
            state |= {f"gradients.{name}": value for name, value in separate.state_dict().items()}
        if reward is not None:
            values = reward.state_dict()
            state |= {f"reward.{k}": torch.tensor(v, dtype=torch.float64) for k, v in values.items()}
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        parts: dict[str, dict[str, torch.Tensor]] = {"adversary": {}, "method": {}, "gradients": {}, "reward": {}}
        for key, value in state.items():
            part, name = key.split(".", 1)
            parts[part][name] = value
        self._terms.adversary.load_state_dict(parts["adversary"])
        self._terms.method.load_state_dict(parts["method"])
        if self._terms.separate is not None:
            self._terms.separate.load_state_dict(parts["gradients"])
        if self._terms.reward is not None:
            self._terms.reward.load_state_dict({name: float(value) for name, value in parts["reward"].items()})

    def _forget_rows(self, micro: MicroBatch, parts: Sequence[Seen], reference: ReferenceView | None) -> ForgetRows:
        """Returns what the method compares: forget rows and paired answers, under policy and reference."""
        policy, paired = parts[0], parts[1] if micro.forget_parts > 1 else None
        table, forget = self._references.table, list(micro.forget)
        in_table = paired_in_table = None
        if table is not None:
            in_table = RowNLL(table.forget[forget].to(policy.total), policy.tokens)
            if paired is not None:
                paired_in_table = RowNLL(table.paired[list(micro.paired)].to(paired.total), paired.tokens)
        states = {} if reference is None else reference.states.get(0, {})
        assert micro.perturbed is not None
        return ForgetRows(policy, in_table, paired, paired_in_table, states, micro.perturbed.row_ids)

    def _margin(self) -> Margin | None:
        reward = self._terms.reward
        if reward is None:
            return None
        return lambda x_ref, depth: reward.margin(x_ref, depth, self._plan.ranks.gather)

    def _adversary_gain(self, forget: Batch, step: int) -> Sums:
        """Measures by how much the per-token NLL of forget rows falls when all are perturbed: sum, number of rows."""
        every = torch.arange(len(forget.row_ids), device=self._policy.device)
        with torch.no_grad():
            clean = self._policy.row_nll(forget) / forget.tokens
        with self._terms.adversary.attach(self._policy, forget, every, step), torch.no_grad():
            perturbed = self._policy.row_nll(forget) / forget.tokens
        return {"gain/drop": (clean - perturbed).sum(), "gain/rows": torch.tensor(float(len(every)))}


def compares_with_frozen_model(method: GradientMethod) -> bool:
    """Tells whether a term of the method reads states or logits of the model before unlearning."""
    needs = method.needs
    values = [*needs.values, *(value for term in method.retain_terms for value in term.values)]
    return (
        needs.reference_states
        or any(term.states for term in method.retain_terms)
        or any(value.reads_reference for value in values)
    )


def _seen_parts(shown: Sequence[PartShown], micro: MicroBatch, batch: Batch) -> list[Seen]:
    """Returns what the method sees of each part of a forward."""
    return [
        _seen(part, one, batch.supervised[rows], batch.attention_mask[rows])
        for one, (part, rows, _) in zip(shown, micro.request.spans(), strict=True)
    ]


def _seen(part: PartRequest, shown: PartShown, supervised: torch.Tensor, real: torch.Tensor) -> Seen:
    """
    Args:
        supervised: (rows, length) bool mask of the part's supervised tokens.
        real: (rows, length) 1 on tokens, 0 on padding.
    """
    tokens = supervised.sum(1)
    return Seen(
        tokens if shown.nll is None else tokens.to(shown.nll.dtype),
        supervised.nonzero(as_tuple=True)[0],
        shown.nll,
        shown.values,
        shown.states,
        real.nonzero(as_tuple=True)[0] if part.states else None,
        shown.lens_nll,
    )
