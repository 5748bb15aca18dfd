"""The plausible wrong answers that the target gives to the forget prompts, for methods that prefer them (altpo)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from erulab.data.rows import Request, Row
from erulab.evaluation.alternatives import generate_alternatives
from erulab.methods.base import gradient_method
from erulab.methods.needs import Alternatives
from erulab.reporting.console import announce
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.training.encode_rows import content_hash
from erulab.training.loader import ModelRef

VERSION = 1  # of this stage's results: a change generates every alternative anew
KIND = "alternatives"
FILE = "alternatives.json"  # row id -> texts


def wanted_alternatives(options: Any) -> Alternatives | None:
    """Returns which alternatives the method of these options asks for; None if it asks for none."""
    method = gradient_method(options)
    return None if method is None else method.needs.generated


def make_alternatives(context: Context, start: ModelRef, request: Request, wanted: Alternatives) -> Product:
    """Asks the model that a request starts from for alternatives, unless the cache has them."""

    def make(folder: Path) -> None:
        if context.ranks.first:
            announce(f"asking for {wanted.count} alternatives to each of {len(request.forget)} forget answers")
        config = context.config
        found = generate_alternatives(
            context.loader.load(start),
            request.forget,
            wanted,
            config.seed,
            config.evaluation.fixed_tokens,
            context.ranks,
        )
        if context.ranks.first:
            (folder / FILE).write_text(json.dumps(found, ensure_ascii=False, indent=1), encoding="utf-8")

    return context.cache.produce(KIND, _depend_on(context, start, request, wanted), make, rerun=context.config.rerun)


def find_alternatives(context: Context, start: ModelRef, request: Request, wanted: Alternatives) -> Product | None:
    """Finds alternatives that an earlier run generated."""
    return context.cache.find(KIND, _depend_on(context, start, request, wanted))


def read_alternatives(product: Product) -> dict[str, list[str]]:
    """Reads the texts of each row, by row id."""
    found: dict[str, list[str]] = json.loads((product.folder / FILE).read_text(encoding="utf-8"))
    return found


def shown_alternatives(product: Product, rows: Sequence[Row], count: int) -> list[dict[str, Any]]:
    """Returns the content of the run folder's file: prompt, reference and alternatives of the first rows.

    Args:
        count: the number of rows that the report shows.
    """
    found = read_alternatives(product)
    return [{"prompt": row.prompt, "reference": row.response, "alternatives": found[row.id]} for row in rows[:count]]


def _depend_on(context: Context, start: ModelRef, request: Request, wanted: Alternatives) -> dict[str, Any]:
    encoder = context.encoder_of(context.loader.chat_of(start.path))
    return {
        "stage": "alternatives",
        "version": VERSION,
        "target": start.key,
        "chat": encoder.chat.identity(),
        "rows": content_hash(encoder.encode(request.forget)),
        "values": [(row.prefix, row.value, row.accepted) for row in request.forget],
        "wanted": asdict(wanted),
        "seed": context.config.seed,
    }
