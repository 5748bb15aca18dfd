"""What a report says of several oracles."""

from __future__ import annotations

import copy
from typing import Any

from erulab.reporting import load_run, score_table
from erulab.reporting.oracles import shown_oracle_note, spread_sentence
from erulab.reporting.page import html_page, markdown_page
from erulab.reporting.tables import key_table
from tests.reporting.conftest import SCORES, MakeRun

WORDS = "3 oracles: a model that never saw the facts scores between -0.03 and 0.04"


def with_oracles(*left: float) -> dict[str, dict[str, Any]]:
    scores: dict[str, dict[str, Any]] = copy.deepcopy(SCORES)
    for number, value in enumerate(left, 1):
        role = "oracle" if number == 1 else f"oracle@{number}"
        scores[role] = {**SCORES["oracle"], "knowledge_left": value}
    scores["unlearned"]["oracle_spread"] = 0.03
    return scores


def test_the_sentence_gives_the_range_over_oracles() -> None:
    assert spread_sentence(with_oracles(0.011, -0.03, 0.04)).startswith(WORDS)
    assert spread_sentence(SCORES) == spread_sentence({}) == ""
    without_gap = {**SCORES, "oracle@2": SCORES["oracle"]}  # knowledge left is undefined
    assert spread_sentence(without_gap) == ""
    assert shown_oracle_note(without_gap) != () == shown_oracle_note(SCORES)


def test_pages_show_the_first_oracle_and_say_how_many_there_are(make_run: MakeRun) -> None:
    run = load_run(make_run("eru-1", scores=with_oracles(0.011, -0.03, 0.04)))
    pages = (markdown_page(run, []), html_page(run, {}))
    assert all(page.count(WORDS) == 1 and "the first of 3" in page for page in pages)
    for table in (key_table(run), score_table(run)):
        assert table.headings[-3:] == ("target", "unlearned", "oracle")
        assert all("oracle_spread" not in cell.text for row in table.rows for cell in row)
    plain = load_run(make_run("eru-2"))
    assert "the first of" not in markdown_page(plain, []) and " oracles" not in markdown_page(plain, [])
