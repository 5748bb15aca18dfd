"""Measures the Unlearning Depth Score: the target is patched with the states of the oracle and the unlearned models.

What one model's states do to the target is a product of its own, so that a sweep patches with the oracle's once. Models
are loaded one after another; the states go through a file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from erulab.data.rows import Role, Row
from erulab.data.spans import find_spans
from erulab.evaluation.depth.patching import PatchedRow, save_states, score_patched
from erulab.evaluation.depth.score import THRESHOLD, Depth, Values, depth_score, mean_gap
from erulab.models import folders
from erulab.reporting.console import announce
from erulab.roles import ORACLE
from erulab.stages.cache import Product
from erulab.stages.context import Context
from erulab.stages.unlearn import UNLEARNED
from erulab.tokens.batch import Encoded
from erulab.tokens.chat import ChatFormat
from erulab.training.encode_rows import content_hash
from erulab.training.loader import ModelRef

VERSION = 1  # of the stored values: a change patches every model again
KIND = "patched"
FILE = "rows.json"


@dataclass(frozen=True)
class DepthScores:
    """The depth figures of a run.

    figures, intervals: model -> figure -> value, and its 95 % interval, for scores.json and intervals.json.
    curves: content of uds.json; empty if UDS is not measured.
    products: what they were computed from.
    """

    figures: dict[str, dict[str, Any]]
    intervals: dict[str, dict[str, tuple[float, float]]]
    curves: dict[str, Any]
    products: list[Product]


def depth_scores(context: Context, models: Mapping[str, ModelRef]) -> DepthScores:
    """Returns UDS of every unlearned model on the rows of the forget suites, unless the models cannot be patched.

    Args:
        models: role -> model, as far as the run has them.
    """
    # A second oracle is judged too: it shows what a model has that never saw the facts, and is not the first one.
    judged = [role for role in models if role not in ("target", ORACLE)]
    chat = context.loader.chat_of(models["target"].path) if "target" in models else context.chat
    asked, facts = _value_rows(context, chat)
    why = _why_not(context, models, chat) or ("" if asked else "no forget row has a response")
    if why:
        return DepthScores({role: {"uds_note": why} for role in judged}, {}, {}, [])
    products, patched = [], {}
    for role in (ORACLE, *judged):
        product = _patch(context, models["target"], role, models[role], asked)
        products.append(product)
        patched[role] = [PatchedRow(**one) for one in json.loads((product.folder / FILE).read_text())]
    reported = [i for i, row in enumerate(asked) if facts[row.row_id] not in context.unreported_facts]
    gap = _drops(patched[ORACLE])[reported]
    ids = [asked[i].row_id for i in reported]
    clusters = [facts[row_id] for row_id in ids]
    depths = {role: depth_score(gap, _drops(patched[role])[reported], clusters) for role in judged}
    figures = {role: _figures(depth) for role, depth in depths.items()}
    # By construction: what the scale is made of.
    figures |= {role: {"uds": value} for role, value in (("target", 0.0), (ORACLE, 1.0))}
    curves = {
        "threshold": THRESHOLD,
        "gap": mean_gap(gap).tolist(),
        "models": {
            role: {
                "layers": depth.layers.tolist(),
                "rows": [
                    {"id": row_id, "fact": fact, "uds": value}
                    for row_id, fact, value in zip(ids, clusters, depth.rows.tolist(), strict=True)
                ],
            }
            for role, depth in depths.items()
        },
    }
    intervals = {role: {"uds": depth.interval} for role, depth in depths.items() if depth.interval is not None}
    return DepthScores(figures, intervals, curves, products)


def _figures(depth: Depth) -> dict[str, Any]:
    if depth.value is None:
        return {"uds_note": f"no layer's states of the oracle cost a forget row over {THRESHOLD} nats per token"}
    return {"uds": depth.value, "uds/n": depth.count}


def _drops(patched: Sequence[PatchedRow]) -> Values:
    return np.array([[row.plain - value for value in row.patched] for row in patched])


def _why_not(context: Context, models: Mapping[str, ModelRef], chat: ChatFormat) -> str:
    """Returns why the models cannot be patched into each other; "" if they can."""
    absent = [role for role in ("target", UNLEARNED, ORACLE) if role not in models]
    if absent:
        return f"there is no {' and no '.join(absent)}"
    for role, ref in models.items():
        if context.loader.chat_of(ref.path).identity() != chat.identity():
            return f"{role} and target have different tokenizers or chat templates"
        if _shape(ref) != _shape(models["target"]):
            return f"{role} and target differ in width or depth"
    return ""


def _shape(ref: ModelRef) -> tuple[object, object]:
    """Returns depth and width, as config.json names them."""
    config = folders.read_config(ref.path) or {}
    text = config.get("text_config", config)
    assert isinstance(text, dict)
    return folders.depth_of(config), text.get("hidden_size", text.get("n_embd"))


def _value_rows(context: Context, chat: ChatFormat) -> tuple[list[Encoded], dict[str, str]]:
    """Returns the rows of the forget suites up to their values, in order of length, and the fact of each."""
    rows = {row.id: row for suite in context.data.selected.suites if suite.role is Role.FORGET for row in suite.rows}
    encoded = [one for row in rows.values() if (one := encode_value(chat, row)) is not None]
    encoded.sort(key=lambda one: (len(one.ids), one.row_id))
    return encoded, {row.id: row.fact_id for row in rows.values()}


def encode_value(chat: ChatFormat, row: Row) -> Encoded | None:
    """Encodes a row up to its value, whose tokens alone are supervised; None if there is nothing to predict.

    The value is the marked words, otherwise the row's value, otherwise the whole response without its end of turn,
    which tells no fact.
    """
    if not row.response:
        return None
    whole = chat.encode(row)
    positions = chat.span_positions(row, row.response, _value_spans(row))
    positions = positions or tuple(whole.positions[: whole.tokens - chat.closing(whole)])
    if not positions:
        return None
    end = positions[-1] + 1
    return dataclasses.replace(whole, ids=whole.ids[:end], end=end, supervised=positions)


def _value_spans(row: Row) -> list[tuple[int, int]]:
    if row.spans:
        return find_spans(row.response, row.spans)
    return [(len(row.prefix), len(row.prefix + row.value))] if row.value else []


def _patch(context: Context, target: ModelRef, role: str, source: ModelRef, rows: Sequence[Encoded]) -> Product:
    """Scores the rows under the target with the states of the source, unless the cache has the result."""
    context.stop.check()
    ranks, budget = context.ranks, context.config.evaluation.fixed_tokens
    depends_on = {
        "stage": "uds",
        "version": VERSION,
        "target": target.key,
        "source": source.key,
        "rows": content_hash(rows),
    }

    def make(folder: Path) -> None:
        if ranks.first:
            model = "unlearned model" if role == UNLEARNED else role
            announce(f"patching the target with the {model}'s states on {len(rows)} rows")
        mine, states = ranks.mine(rows), folder / f"states{ranks.rank}.npy"
        save_states(context.loader.load(source), mine, budget, states)
        found = ranks.join(score_patched(context.loader.load(target), mine, budget, states))
        states.unlink(missing_ok=True)
        if ranks.first:
            (folder / FILE).write_text(json.dumps([dataclasses.asdict(row) for row in found]))

    return context.cache.produce(KIND, depends_on, make, rerun=context.config.rerun)
