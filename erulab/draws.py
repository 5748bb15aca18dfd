"""Random numbers as pure functions of a seed and a purpose, such as `uniform(seed, "mask", step, row_id)`.

No global generator is used, so row order, masks and noise are the same on any number of processes and after a resume.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    import torch
else:
    torch = lazy_loader.load("torch")


def seed_of(*parts: object) -> int:
    """Returns a 63-bit seed that depends on all parts; any value with a `str` may be one."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def uniform(*parts: object) -> float:
    """Draws a number in [0, 1)."""
    return seed_of(*parts) / 2.0**63


def choice(n: int, *parts: object) -> int:
    """Draws an index in 0..n-1."""
    return seed_of(*parts) % n


def order(n: int, *parts: object) -> torch.Tensor:
    """Draws a random order of 0..n-1, as an (n,) int64 tensor."""
    return torch.randperm(n, generator=generator(*parts))


def permutation(n: int, *parts: object) -> list[int]:
    """Draws a random order of 0..n-1, as a list."""
    return order(n, *parts).tolist()


def generator(*parts: object) -> torch.Generator:
    """Returns a new CPU generator, for tensors of random numbers."""
    return torch.Generator().manual_seed(seed_of(*parts))
