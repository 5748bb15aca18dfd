"""NLL of forget rows and their paired answers under the model before unlearning: computed once, kept on disk."""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from erulab.costs.ledger import Spent
from erulab.evaluation.scoring import score
from erulab.models.policy import Policy
from erulab.models.shards import save_tensors
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded
from erulab.training.encode_rows import content_hash

log = logging.getLogger(__name__)

TOGETHER = 4096  # rows of a large data set that are in memory and scored at once


@dataclass(frozen=True)
class ReferenceTable:
    """Float64 sequence NLL in nats, in the order of the encoded rows; never perturbed."""

    forget: torch.Tensor  # (rows,)
    paired: torch.Tensor  # (rows x paired answers of each,)


def reference_table(
    policy: Policy,
    weights_key: str,
    forget: Sequence[Encoded],
    paired: Sequence[Encoded],
    *,
    folder: Path,
    pad_id: int,
    batch_tokens: int,
    ranks: Ranks,
) -> ReferenceTable:
    """Reads the table of these rows from `folder`, or computes and keeps it there; its costs are counted either way.

    Args:
        policy: the model before unlearning.
        weights_key: of its weights and the precision of its forwards. With the token ids and label masks of the rows
            it names the table's file. Under ZeRO-3 the weights may be in bfloat16, which makes another table.
        paired: as many rows as `forget` or a multiple of them, whose j-th part answers `forget` in order; or none.
        batch_tokens: tokens per forward.
    """
    dtype = next(policy.parameters()).dtype
    weights = weights_key if dtype == torch.float32 else f"{weights_key}-{dtype}"
    key = hashlib.sha256(f"{weights} {content_hash(forget)} {content_hash(paired)}".encode()).hexdigest()[:32]
    file = folder / f"{key}.safetensors"
    known = ranks.gather_objects(_read(file) if ranks.first else None)[0]
    if known is None:
        before = policy.ledger.spent
        answers = [(forget, 0), *((paired, start) for start in range(0, len(paired), len(forget)))]
        nll = [array("d") for _ in answers]
        for first in range(0, len(forget), TOGETHER):
            last = min(first + TOGETHER, len(forget))
            parts = [rows[start + first : start + last] for rows, start in answers]
            scores = iter(score(policy, [row for part in parts for row in part], pad_id, batch_tokens, ranks))
            for values, part in zip(nll, parts, strict=True):
                values.extend(found.nll for found in itertools.islice(scores, len(part)))
        values_of_all = torch.tensor(list(itertools.chain.from_iterable(nll)), dtype=torch.float64)
        spent = sum(ranks.gather_objects(policy.ledger.spent - before), Spent())
        if ranks.first:
            folder.mkdir(parents=True, exist_ok=True)
            # Two runs from one target may write this table at once: each writes its own file, and the last one stays.
            temporary = file.with_suffix(f".{os.getpid()}.tmp")
            costs = json.dumps(spent.plain())
            kept = {"costs": costs, "sha256": _hash_table(values_of_all, costs)}
            save_tensors({"nll": values_of_all}, temporary, kept)
            temporary.replace(file)
        ranks.barrier()
    else:
        values_of_all, spent = known
        if ranks.first:
            policy.ledger.charge(spent)
    return ReferenceTable(values_of_all[: len(forget)], values_of_all[len(forget) :])


def _read(file: Path) -> tuple[torch.Tensor, Spent] | None:
    """Returns a table's values and what computing them cost all processes; None if the file is missing or damaged."""
    try:
        with safe_open(file, framework="pt") as opened:
            values, kept = opened.get_tensor("nll"), opened.metadata() or {}
        if kept["sha256"] == _hash_table(values, kept["costs"]):
            return values, Spent.read(json.loads(kept["costs"]))
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, AttributeError):
        pass
    log.warning("%s is damaged; the reference table is made again", file)
    return None


def _hash_table(values: torch.Tensor, costs: str) -> str:
    return hashlib.sha256(values.numpy().tobytes() + costs.encode()).hexdigest()
