"""NLL of forget rows and their paired answers under the model before unlearning: computed once, kept on disk."""

from __future__ import annotations

import hashlib
import itertools
import os
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from erulab.evaluation.scoring import score
from erulab.models.policy import Policy
from erulab.ranks import Ranks
from erulab.tokens.batch import Encoded
from erulab.training.encode_rows import content_hash

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
    """Reads the table of these rows from `folder`, or computes and keeps it there.

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
    known = ranks.gather_objects(file.exists())[0]
    if not known:
        answers = [(forget, 0), *((paired, start) for start in range(0, len(paired), len(forget)))]
        nll = [array("d") for _ in answers]
        for first in range(0, len(forget), TOGETHER):
            last = min(first + TOGETHER, len(forget))
            parts = [rows[start + first : start + last] for rows, start in answers]
            scores = iter(score(policy, [row for part in parts for row in part], pad_id, batch_tokens, ranks))
            for values, part in zip(nll, parts, strict=True):
                values.extend(found.nll for found in itertools.islice(scores, len(part)))
        if ranks.first:
            folder.mkdir(parents=True, exist_ok=True)
            # Two runs from one target may write this table at once: each writes its own file, and the last one stays.
            temporary = file.with_suffix(f".{os.getpid()}.tmp")
            joined = list(itertools.chain.from_iterable(nll))
            save_file({"nll": torch.tensor(joined, dtype=torch.float64)}, temporary)
            temporary.replace(file)
        ranks.barrier()
    nll_tensor = load_file(file)["nll"]
    return ReferenceTable(nll_tensor[: len(forget)], nll_tensor[len(forget) :])
