"""What the run folder keeps of prompts, references and generated texts: the texts, or their SHA-256 only."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from erulab.options import ArtifactsOptions, ForgetText

# Keys of samples.json, judged.jsonl and alternatives.json that hold names and no text of a row or a model.
NAMES = ("suite", "role", "model", "id", "verdict")


def kept_texts(rows: Sequence[dict[str, Any]], options: ArtifactsOptions) -> list[dict[str, Any]]:
    """Returns rows of texts as the run folder keeps them.

    Args:
        rows: as the stages make them.
        options: `forget_text=hash_only` puts `sha256:` and 64 hex digits in the place of each text; equal texts stay
            recognisable.
    """
    if options.forget_text is ForgetText.keep:
        return list(rows)
    return [{key: value if key in NAMES else _hashed(value) for key, value in row.items()} for row in rows]


def _hashed(value: Any) -> Any:
    if isinstance(value, str):
        return f"sha256:{hashlib.sha256(value.encode(errors='surrogatepass')).hexdigest()}"
    return [_hashed(item) for item in value] if isinstance(value, list) else value
