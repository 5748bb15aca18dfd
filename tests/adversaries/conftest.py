"""A forward batch with perturbed rows, rows left alone and retain rows; and hooks that read the states of modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from erulab import draws
from erulab.adversaries.hooks import module_at_layer
from erulab.adversaries.latent_pgd import LatentPGD, LatentPGDOptions
from erulab.adversaries.noise import Noise, NoiseOptions
from erulab.adversaries.random_direction import RandomDirection, RandomDirectionOptions
from erulab.adversaries.rfa import RFA, RFAOptions
from erulab.models.policy import Policy
from erulab.tokens.batch import Batch, collate
from tests.samples.tiny import FORGET, RETAIN

# Forget rows 0 and 2 are perturbed, 1 and 3 are outside the Bernoulli mask; retain rows make the padding longer.
OUTER = collate([*FORGET, *RETAIN], 1)
FORGET_BATCH = collate(FORGET, 1)
ROWS = torch.tensor([0, -1, 2, -1, -1, -1, -1, -1])
PERTURBED, LEFT_ALONE = [0, 2], [1, 3, 4, 5, 6, 7]

ADVERSARIES: dict[str, Callable[..., Any]] = {
    "rfa": lambda **o: RFA(RFAOptions(**{"n": 3, "warmup": 0.0, **o})),
    "random_direction": lambda **o: RandomDirection(RandomDirectionOptions(**{"warmup": 0.0, **o})),
    "noise": lambda **o: Noise(NoiseOptions(**{"eps_rel": 0.3, **o})),
    "latent_pgd": lambda **o: LatentPGD(LatentPGDOptions(**{"eps_rel": 0.3, "steps": 3, **o})),
}


def draw(part: str, n: int, step: int) -> Batch:
    rows = FORGET if part == "forget" else RETAIN
    return collate([rows[i] for i in draws.permutation(len(rows), 0, part, step)[:n]], 1)


def prepared(name: str, policy: Policy, **options: Any) -> Any:
    adversary = ADVERSARIES[name](**options)
    adversary.seed = 13
    adversary.prepare(0, 10, policy, draw)
    return adversary


@contextmanager
def watched(policy: Policy, layers: list[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Records the inputs of the modules at these layers, after all hooks that were attached before."""
    seen: dict[int, torch.Tensor] = {}

    def watch(layer: int) -> Any:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            seen[layer] = args[0].detach().clone()

        return hook

    handles = [module_at_layer(policy, layer).register_forward_pre_hook(watch(layer)) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def states(policy: Policy, batch: Batch, layers: list[int]) -> dict[int, torch.Tensor]:
    with torch.no_grad(), watched(policy, layers) as seen:
        policy.row_nll(batch)
    return seen


def hooks_on(policy: Policy) -> int:
    return sum(len(m._forward_pre_hooks) + len(m._forward_hooks) for m in policy.modules())
