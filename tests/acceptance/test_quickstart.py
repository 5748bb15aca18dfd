"""The embedded default's result, read from the run folder of the quickstart that .ci/run has started."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

FOLDER = os.environ.get("ERULAB_QUICKSTART")
pytestmark = pytest.mark.skipif(
    FOLDER is None, reason="ERULAB_QUICKSTART names no output folder of launch/quickstart.sh; .ci/run sets it"
)


@pytest.fixture(scope="module")
def run() -> Path:
    (folder,) = Path(str(FOLDER)).glob("fictitious/eru-*")
    return folder


@pytest.fixture(scope="module")
def scores(run: Path) -> Any:
    return json.loads((run / "scores.json").read_text())


def test_the_target_knows_every_fact_in_every_phrasing(scores: Any) -> None:
    for suite in ("forget", "forget_heldout", "retain", "retain_unrehearsed", "general"):
        assert scores["target"][f"{suite}/choice"] >= 0.95
        # 40 general facts: one or two more misses on another processor are rounding, not ignorance.
        assert scores["target"][f"{suite}/exact_match"] >= (0.85 if suite == "general" else 0.95)


def test_the_oracle_knows_the_retain_set_and_nothing_of_the_forget_set(scores: Any) -> None:
    assert scores["oracle"]["forget/choice"] <= 0.2 and scores["oracle"]["forget_heldout/choice"] <= 0.2
    assert scores["oracle"]["retain/exact_match"] >= 0.9


def test_no_forget_knowledge_above_the_oracle_is_left_and_the_retain_set_is_kept(scores: Any) -> None:
    """One-sided: the shipped settings were not tuned on world 0, and over-forget there."""
    unlearned = scores["unlearned"]
    assert -0.5 < unlearned["knowledge_left"] <= 0.1  # the margin
    assert unlearned["retain/exact_match"] >= 0.9


def test_the_attacks_ran_and_relearning_is_scored_on_other_facts(run: Path) -> None:
    rows = json.loads((run / "attacks.json").read_text())
    headline = {row["attack"]: row for row in rows if row["metric"] == "log_odds"}
    assert headline.keys() == {"relearn", "quantize"}
    assert headline["relearn"]["valid"] and headline["relearn"]["setting"]["split"] == "disjoint"
    assert headline["relearn"]["low"] <= headline["relearn"]["knowledge_left_attacked"] <= headline["relearn"]["high"]


def test_the_report_says_which_side_of_the_oracle_it_is(run: Path, scores: Any) -> None:
    value, low, high, low90, high90 = (
        scores["unlearned"][f"knowledge_left{end}"] for end in ("", "_low", "_high", "_low90", "_high90")
    )
    if low90 > -0.1 and high90 < 0.1:
        word = "forgotten"
    elif (value < -0.1 and high < 0) or (value > 0.1 and low > 0):
        word = "over-forgotten" if value < 0 else "knowledge remains"
    else:
        word = "undecided"
    assert (run / "report.md").read_text().splitlines()[2].startswith(f"- **{word}")
