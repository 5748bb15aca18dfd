"""`evaluation.facts`: what tunes and what is reported are two halves of the facts, whatever the seed."""

from __future__ import annotations

import contextlib
import hashlib
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from erulab.data.measures import Answers
from erulab.data.rows import Role, Row, Suite
from erulab.errors import DataError
from erulab.evaluation.row_score import RowScore
from erulab.options import EvaluationOptions, Facts
from erulab.stages.evaluate import half_of_others
from erulab.stages.halves import check_half
from tests.pipeline.conftest import Finished, Runner, copy_first, first, run

__all__ = ["copy_first", "first", "run"]  # fixtures

STAGES = "stages=[target,oracle,unlearn,evaluate]"


def scored_rows(finished: Finished, role: int) -> list[dict[str, Any]]:
    """The row scores of the target (0), unlearned model (1) or oracle (2), of all facts, as the cache holds them."""
    key = finished.read("stages.json")["evaluate"]["key"].split("+")[role]
    cache = finished.rundir.path.parents[1] / ".cache" / "evaluated" / key
    return [json.loads(line) for line in (cache / "rows.jsonl").read_text().split("\n")]


def knowledge_left(finished: Finished, facts: set[str]) -> float:
    """K on the rows of these facts: (unlearned - oracle) / (target - oracle), of mean log-odds."""
    forget = {"forget", "heldout"}
    means = [
        np.mean(
            [
                row["figures"]["log_odds"]
                for row in scored_rows(finished, role)
                if row["role"] in forget and row["fact"] in facts and "log_odds" in row["figures"]
            ]
        )
        for role in range(3)
    ]
    return float((means[1] - means[2]) / (means[0] - means[2]))


def test_the_two_halves_share_no_fact_and_lose_none(run: Runner) -> None:
    """K of each half is computed here from the row scores; the halves come from hashes, in ten lines of their own."""
    validation = run(STAGES, "attack=none", "evaluation.facts=validation")
    reported = run(STAGES, "attack=none", "evaluation.facts=reported")
    other_seed = run(STAGES, "attack=none", "evaluation.facts=reported", "seed=5")
    assert len({one.rundir.path for one in (validation, reported, other_seed)}) == 3
    rows = scored_rows(validation, 0)
    facts = sorted({row["fact"] for row in rows if row["role"] in ("forget", "heldout")})
    chosen = set(sorted(facts, key=drawn)[: len(facts) // 2])
    for finished, own in ((validation, chosen), (reported, set(facts) - chosen), (other_seed, set(facts) - chosen)):
        unlearned = finished.read("scores.json")["unlearned"]
        assert unlearned["knowledge_left_facts"] == len(own)
        assert unlearned["knowledge_left"] == pytest.approx(knowledge_left(finished, own), abs=1e-9)
    # Utility is of other rows as well.
    kept = [one.read("scores.json")["target"]["retain/probability"] for one in (validation, reported)]
    whole = [row["figures"]["probability"] for row in rows if row["suite"] == "retain"]
    assert kept[0] != kept[1] and min(kept) < float(np.mean(whole)) < max(kept)


def drawn(fact: str) -> int:
    """The draw of a fact under seed 0, written out: the first 8 bytes of a SHA-256, without the sign."""
    digest = hashlib.sha256("\x1f".join(["0", "attack", "validation", fact]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def test_other_roles_are_split_by_fact() -> None:
    rows = [RowScore(str(i), "retain", Role.RETAIN.value, f"f{i // 2}", "", {}) for i in range(12)]
    rows += [RowScore("u", "unseen", Role.UNSEEN.value, "u", "", {})]
    rows += [RowScore("x", "forget", Role.FORGET.value, "x", "", {})]
    one, other = (half_of_others(rows, part) for part in (Facts.validation, Facts.reported))
    both = [{row.fact for row in part if row.role == Role.RETAIN.value} for part in (one, other)]
    assert len(both[0]) == len(both[1]) == 3 and not both[0] & both[1]
    # Rows of one fact stay together; a single fact has no half, and forget rows are split elsewhere.
    assert len(one) == len(other) == 6 + 2 and half_of_others(rows, Facts.all) == rows


@pytest.mark.parametrize(
    ("facts", "perturbed", "part", "said"),
    [
        (("a",), True, Facts.validation, "two facts to forget or more"),
        (("a",), True, Facts.reported, "two facts to forget or more"),
        (("a", "b"), False, Facts.validation, "no forget row that is measured has wrong answers"),
        (("a", "b"), False, Facts.reported, ""),
        (("a", "b"), True, Facts.validation, ""),
        (("a",), False, Facts.all, ""),
    ],
)
def test_data_that_cannot_tune_is_refused(facts: tuple[str, ...], perturbed: bool, part: Facts, said: str) -> None:
    rows = tuple(Row(fact, "Where?", "here", perturbed=("there",) if perturbed else ()) for fact in facts)
    data = SimpleNamespace(suites=(Suite("forget", Role.FORGET, rows, Answers()),))
    context: Any = SimpleNamespace(
        config=SimpleNamespace(evaluation=EvaluationOptions(facts=part)),
        data=SimpleNamespace(fitted=data, selected=data),
    )
    with pytest.raises(DataError, match=said) if said else contextlib.nullcontext():
        check_half(context)
