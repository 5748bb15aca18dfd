"""Private random numbers: every draw is a pure function of a seed and of what it is drawn for.

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
    """A 63-bit seed from any printable parts: `seed_of(seed, "mask", step, row_id)`."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def uniform(*parts: object) -> float:
    """One number in [0, 1)."""
    return seed_of(*parts) / 2.0**63


def choice(n: int, *parts: object) -> int:
    """One index in 0..n-1."""
    return seed_of(*parts) % n


def order(n: int, *parts: object) -> torch.Tensor:
    """(n,) int64, a random order of 0..n-1."""
    return torch.randperm(n, generator=generator(*parts))


def permutation(n: int, *parts: object) -> list[int]:
    """`order` as a list."""
    return order(n, *parts).tolist()


def generator(*parts: object) -> torch.Generator:
    """A fresh CPU generator."""
    return torch.Generator().manual_seed(seed_of(*parts))
