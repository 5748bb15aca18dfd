"""Unlearning steps the plain way, as public code takes them; the benchmark compares erulab with them.

Two forwards (forget rows, retain rows), a live reference model, float32 logits of every position over the whole
vocabulary, padding to the longest row, AdamW as PyTorch makes it by default. Written from the formulas of the
pages, without erulab's losses, rewards, adversaries or policy, so that equal losses verify them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PreTrainedModel

from erulab import draws
from erulab.bench.measure import DEVICE
from erulab.tokens.batch import Encoded
from erulab.training.batches import rows_of_stream
from erulab.training.unlearning_batches import UnlearningRows

IGNORED = -100


@dataclass
class PlainBatch:
    """Token ids, mask, labels and prompt mask, padded to the longest row: (rows, length) each."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    prompts: torch.Tensor


def pad(rows: Sequence[Encoded], pad_id: int) -> PlainBatch:
    """Pads rows to a batch on the device of the benchmark."""
    length = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), length), pad_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, IGNORED)
    prompts = torch.zeros_like(ids, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, : len(row.ids)] = torch.tensor(row.ids)
        mask[i, : len(row.ids)] = 1
        labels[i, row.start : row.end] = ids[i, row.start : row.end]
        prompts[i, : row.start] = True
    return PlainBatch(ids.to(DEVICE), mask.to(DEVICE), labels.to(DEVICE), prompts.to(DEVICE))


def row_nll(model: PreTrainedModel, batch: PlainBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns (rows,) summed NLL of each response in nats, and (rows,) its tokens."""
    logits = model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).logits.float()
    labels = batch.labels[:, 1:]
    nll = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="none")
    return nll.view_as(labels).sum(1), (labels != IGNORED).sum(1)


class PlainUnlearning:
    """Unlearning with the defaults of a method; each call takes one optimizer step."""

    def __init__(
        self, model: PreTrainedModel, reference: PreTrainedModel, rows: UnlearningRows, config: Any, pad_id: int
    ) -> None:
        self._model, self._reference, self._rows, self._config, self._pad_id = model, reference, rows, config, pad_id
        matrices = [p for p in model.parameters() if p.dim() >= 2]
        others = [p for p in model.parameters() if p.dim() < 2]
        groups = [
            {"params": matrices, "weight_decay": config.trainer.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        self._optimizer = torch.optim.AdamW(groups, lr=config.trainer.lr)
        self._step = 0
        self._directions: dict[int, torch.Tensor] = {}
        self._statistics = (0.0, 0.0, 0.0)  # elastic reward: weight, mean, mean square

    def __call__(self) -> float:
        """Takes one step; returns its loss."""
        config, size = self._config, self._config.trainer.global_batch
        forget = rows_of_stream(config.seed, "forget", len(self._rows.forget), self._step * size, size)
        loss = self._forget_loss(forget)
        if config.method.retain.value == "nll":
            retain = rows_of_stream(config.seed, "retain", len(self._rows.retain), self._step * size, size)
            total, tokens = row_nll(self._model, pad([self._rows.retain[i] for i in retain], self._pad_id))
            loss = loss + config.method.retain_weight * total.sum() / tokens.sum()
        loss.backward()
        nn.utils.clip_grad_norm_(self._model.parameters(), config.trainer.clip)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self._step += 1
        return float(loss.detach())

    def _forget_loss(self, forget: list[int]) -> torch.Tensor:
        method = self._config.method
        batch = pad([self._rows.forget[i] for i in forget], self._pad_id)
        with self._perturbed(batch, forget):
            total, tokens = row_nll(self._model, batch)
        if method.name == "ga":
            return -total.sum() / tokens.sum()
        if method.name == "simnpo":
            return (2 / method.beta) * F.softplus(-method.beta * (total / tokens - self._config.reward.gamma)).mean()
        with torch.no_grad():
            before, _ = row_nll(self._reference, batch)
        if method.name == "npo":
            return (2 / method.beta) * F.softplus(-method.beta * (total - before)).mean()
        if method.name == "dpo":
            other = pad([self._rows.paired[i] for i in forget], self._pad_id)
            refusal, _ = row_nll(self._model, other)
            with torch.no_grad():
                refusal_before, _ = row_nll(self._reference, other)
            return (2 / method.beta) * F.softplus(-method.beta * (total - before - refusal + refusal_before)).mean()
        depth = (total - before).detach() / tokens
        return (2 / method.beta) * F.softplus(-method.beta * (total / tokens - self._margin(depth))).mean()

    def _margin(self, depth: torch.Tensor) -> torch.Tensor:
        """Returns (rows,) the elastic margin of ERU, with moving averages of earlier steps."""
        reward = self._config.reward
        weight, mean, square = self._statistics
        z = torch.zeros_like(depth)
        if weight:
            deviation = math.sqrt(max(square / weight - (mean / weight) ** 2, 0.0))
            z = ((depth - mean / weight) / max(deviation, reward.alpha)).clamp(-reward.z_max, reward.z_max)
        new = (1.0, float(depth.mean()), float((depth**2).mean()))
        pairs = zip(self._statistics, new, strict=True)
        weight, mean, square = (reward.decay * old + (1 - reward.decay) * value for old, value in pairs)
        self._statistics = weight, mean, square
        return reward.gamma + reward.alpha * z

    @contextmanager
    def _perturbed(self, batch: PlainBatch, forget: list[int]) -> Iterator[None]:
        """Puts the adversary's hooks in place while the context is open; autograd needs them in the forward only."""
        adversary = self._config.adversary
        layers = self._model.model.layers
        with ExitStack() as stack:
            if adversary.name != "none":
                ids = [self._rows.forget[i].row_id for i in forget]
                hit = [draws.uniform(self._config.seed, "mask", self._step, row) < adversary.p for row in ids]
                mask = torch.tensor(hit, device=DEVICE)[:, None, None]
            if adversary.name == "rfa":
                if self._step % adversary.every == 0:
                    self._find_directions()
                for layer, r in self._directions.items():
                    module = layers[layer] if layer < len(layers) else self._model.model.norm
                    ablate = lambda h, r=r: torch.where(mask, h - (h @ r)[..., None] * r, h)  # noqa: E731
                    stack.enter_context(_edit_input(module, ablate))
            if adversary.name == "latent_pgd":
                module = layers[max(len(layers) // 4, 1)]
                delta = self._worst_delta(module, batch)
                stack.enter_context(_edit_input(module, lambda h: h + torch.where(mask, delta, 0.0)))
            yield

    def _find_directions(self) -> None:
        n, layers = self._config.adversary.n, self._model.model.layers
        sites = range(math.ceil(self._config.adversary.layers_from * len(layers)), len(layers) + 1)
        means = []
        for part, rows in (("forget", self._rows.forget), ("retain", self._rows.retain)):
            order = draws.permutation(len(rows), self._config.seed, "prompts", part, self._step)[:n]
            prompts = [Encoded("", rows[i].ids[: rows[i].start], 0, 0) for i in order]
            batch = pad(prompts, self._pad_id)
            last = batch.mask.sum(1) - 1
            seen: dict[int, torch.Tensor] = {}
            with torch.no_grad(), ExitStack() as stack:
                for layer in sites:
                    module = layers[layer] if layer < len(layers) else self._model.model.norm

                    stack.enter_context(_edit_input(module, _record_mean(seen, layer, last)))
                self._model(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False)
            means.append(seen)
        self._directions = {layer: F.normalize(means[0][layer] - means[1][layer], dim=0) for layer in sites}

    def _worst_delta(self, module: nn.Module, batch: PlainBatch) -> torch.Tensor:
        """Searches a ball around each prompt token's state for the delta that lowers the forget rows' NLL most."""
        options = self._config.adversary
        states: list[torch.Tensor] = []
        with torch.no_grad(), _edit_input(module, lambda h: states.append(h) or h):  # type: ignore[func-returns-value]
            best_nll, _ = row_nll(self._model, batch)
        norms = states[0].norm(dim=-1)
        others = batch.prompts.clone()
        others[:, 0] = False
        median = torch.stack([row[keep].quantile(0.5) for row, keep in zip(norms, others, strict=True)])
        radius = (options.eps_rel * median)[:, None, None]
        delta = best = torch.zeros_like(states[0])
        for k in range(options.steps + 1):
            delta = delta.detach().requires_grad_()
            with _edit_input(module, lambda h, delta=delta: h + delta):
                nll, _ = row_nll(self._model, batch)
            better = (nll.detach() < best_nll)[:, None, None]
            best = torch.where(better, delta.detach(), best)
            best_nll = torch.minimum(best_nll, nll.detach())
            if k == options.steps:
                return best
            (gradient,) = torch.autograd.grad(nll.sum(), delta)
            moved = delta.detach() - 2.5 / options.steps * radius * F.normalize(gradient, dim=-1, eps=1e-30)
            moved = moved * (radius / moved.norm(dim=-1, keepdim=True).clamp(min=1e-30)).clamp(max=1.0)
            delta = moved * batch.prompts[..., None]
        return best


def _record_mean(seen: dict[int, torch.Tensor], layer: int, last: torch.Tensor) -> Any:
    def keep(h: torch.Tensor) -> torch.Tensor:
        seen[layer] = h[torch.arange(len(h)), last].mean(0)
        return h

    return keep


@contextmanager
def _edit_input(module: nn.Module, edit: Any) -> Iterator[None]:
    handle = module.register_forward_pre_hook(lambda module, args: (edit(args[0]), *args[1:]))
    try:
        yield
    finally:
        handle.remove()
