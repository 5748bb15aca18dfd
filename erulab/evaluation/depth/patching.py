"""Activation patching: how well the target predicts a value with another model's hidden states at one layer.

The target reads prompt and response. At the positions that predict the tokens of the value, h_l is replaced by the
source's h_l; the blocks above, the final norm and the head are the target's own. Layers: h_l is the input of block l,
h_L that of the final norm; the layers 1 .. L are the outputs of the L blocks.

The two models need not be in memory together: the source's states are written to a file, which the target reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from erulab.adversaries.hooks import edit_states, module_at_layer
from erulab.models.loaded import LoadedModel
from erulab.models.policy import Policy
from erulab.tokens.batch import Batch, Encoded, collate


@dataclass(frozen=True)
class PatchedRow:
    """How well the target predicts one row's value: mean log-probability per token of it, nats.

    plain: with the target's own states.
    patched: with the source's h_1, h_2, ..., h_L.
    """

    row_id: str
    plain: float
    patched: tuple[float, ...]


def save_states(source: LoadedModel, rows: Sequence[Encoded], batch_tokens: int, file: Path) -> None:
    """Writes the states at the positions that predict the rows' supervised tokens: (tokens, L, width) in float32.

    Args:
        rows: in order of length; only the tokens of the value are supervised.
        batch_tokens: tokens that one forward of the evaluation may compute.
        file: a new .npy file; none is written without rows.
    """
    policy, place = source.policy, 0
    stored: np.memmap | None = None
    for batch in _batches(source, rows, batch_tokens):
        with torch.no_grad():
            states = policy.run(batch, _layers(policy)).layers
            found = torch.stack([_before_values(states[layer], batch) for layer in _layers(policy)], 1)
        values = found.float().cpu().numpy()
        if stored is None:
            shape = (sum(row.tokens for row in rows), *values.shape[1:])
            stored = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=shape)
        stored[place : place + len(values)] = values
        place += len(values)


def score_patched(target: LoadedModel, rows: Sequence[Encoded], batch_tokens: int, file: Path) -> list[PatchedRow]:
    """Scores the rows' supervised tokens under the target, plain and patched at each layer.

    Args:
        rows, batch_tokens: as `save_states` got them.
        file: the source's states, which `save_states` wrote.
    Returns:
        One entry per row, in order.
    """
    policy, place = target.policy, 0
    stored = np.load(file, mmap_mode="r") if rows else np.empty(0)
    found: list[PatchedRow] = []
    for batch in _batches(target, rows, batch_tokens):
        count = int(batch.supervised.sum())
        source = torch.from_numpy(np.array(stored[place : place + count])).to(policy.device)
        place += count
        with torch.no_grad():
            log_probs = _patched_log_probs(policy, batch, source).cpu()
        parts = log_probs.split(batch.tokens.tolist(), 1)
        for row_id, values in zip(batch.row_ids, parts, strict=True):
            plain, *patched = values.double().mean(1).tolist()
            found.append(PatchedRow(row_id, plain, tuple(patched)))
    return found


def _patched_log_probs(policy: Policy, batch: Batch, source: torch.Tensor) -> torch.Tensor:
    """Returns the log-probability of each supervised token: (1 + L, tokens) nats, plain and patched at h_1 .. h_L.

    Args:
        source: (tokens, L, width) the source's states before these tokens.
    """
    layers = _layers(policy)
    own = policy.run(batch, layers).layers
    # The final states are there already: only norm and head run for the plain value.
    found = [_log_probs_from(policy, batch, layers[-1], own[layers[-1]])]
    for layer in layers:
        states = own[layer].clone()
        states[:, :-1][batch.supervised[:, 1:]] = source[:, layer - 1].to(states.dtype)
        found.append(_log_probs_from(policy, batch, layer, states))
    return torch.stack(found)


def _log_probs_from(policy: Policy, batch: Batch, layer: int, states: torch.Tensor) -> torch.Tensor:
    """Returns the (tokens,) log-probabilities of the supervised tokens, computed from h_layer on.

    Args:
        states: (rows, length, width) h_layer.
    """
    with (
        policy.skip_blocks_below(layer),
        edit_states(policy, [(module_at_layer(policy, layer), lambda below: states)]),
    ):
        return -policy.token_nll(batch)


def _before_values(states: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Selects the states that predict the supervised tokens: (rows, length, width) -> (tokens, width)."""
    return states[:, :-1][batch.supervised[:, 1:]]


def _layers(policy: Policy) -> range:
    return range(1, len(policy.blocks) + 1)


def _batches(loaded: LoadedModel, rows: Sequence[Encoded], batch_tokens: int) -> Iterator[Batch]:
    """Cuts rows into batches, the same for every model of one depth."""
    policy = loaded.policy
    # The states of all layers are kept: so many tokens take the memory of one layer's at the evaluation's own budget.
    budget = batch_tokens // len(policy.blocks)
    together: list[Encoded] = []
    for row in [*rows, None]:
        if together and (row is None or (len(together) + 1) * len(row.ids) > budget):
            # No two rows share the states of a common opening, because only one of them may be patched there.
            alone = tuple(range(len(together)))
            batch = dataclasses.replace(collate(together, loaded.pad_id), prefix_group=alone)
            yield batch.to(policy.device)
            together = []
        if row is not None:
            together.append(row)
