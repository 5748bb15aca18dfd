"""Groups of rows that are no suites: facts at their worst phrasing, refusals, rows that name what was forgotten."""

from __future__ import annotations

import pytest

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.evaluation.aggregate import aggregate
from erulab.evaluation.figures.groups import NAMING, OTHERS, naming_groups, worst_of_phrasings
from erulab.evaluation.intervals import intervals
from erulab.evaluation.knowledge_ratios import rank_left, worst_left
from erulab.evaluation.row_score import RowScore


def scored(suite: str, role: Role, row: str, fact: str, response: str = "", **figures: float) -> RowScore:
    return RowScore(row, suite, role.value, fact, "", figures, response)


def asked(choices: list[tuple[float, float]], **more: float) -> list[RowScore]:
    """Facts with a given and a held-out phrasing, each chosen rightly (1) or not (0)."""
    rows = []
    for i, (given, heldout) in enumerate(choices):
        rows.append(scored("forget", Role.FORGET, f"{i}/0", f"fact/{i}", choice=given, log_odds=0.0, rank_auc=given))
        rows.append(scored("heldout", Role.HELDOUT, f"{i}/1", f"fact/{i}", choice=heldout, log_odds=0.0, **more))
    return rows


def test_a_fact_counts_as_known_if_any_of_its_phrasings_is_answered() -> None:
    rows = asked([(1, 0), (0, 1), (0, 0), (1, 1), (0, 0)], exact_match=1.0)
    found = {entry.fact: entry.figures for entry in worst_of_phrasings(rows)}
    assert [found[f"fact/{i}"]["choice"] for i in range(5)] == [1, 1, 0, 1, 0]
    assert all(entry["exact_match"] == 1 for entry in found.values())
    benchmark = Benchmark("b", (Suite("forget", Role.FORGET, ()), Suite("heldout", Role.HELDOUT, ())))
    figures = aggregate(rows, benchmark)
    assert figures["worst_of_phrasings/choice"] == pytest.approx(3 / 5)
    assert figures["worst_of_phrasings/n"] == 5  # facts, not rows
    assert figures["forget/choice"] == figures["heldout/choice"] == pytest.approx(2 / 5)
    low, high = intervals({"target": figures}, {"target": rows}, benchmark)["target"]["worst_of_phrasings/choice"]
    assert 0.0 < low < 0.6 < high <= 1.0


def test_the_share_left_at_the_worst_phrasing_is_between_target_and_oracle() -> None:
    target = asked([(1, 1)] * 40)
    oracle = asked([(0, 1)] * 4 + [(0, 0)] * 36)
    model = asked([(0, 1)] * 4 + [(1, 0)] * 9 + [(0, 1)] * 9 + [(0, 0)] * 18)
    assert worst_left(model, target, oracle).value == pytest.approx((22 - 4) / (40 - 4))
    assert worst_left(target, target, oracle).value == 1.0 and worst_left(oracle, target, oracle).value == 0.0
    assert worst_left(oracle, oracle, oracle).value is None


def test_knowledge_left_on_ranks() -> None:
    def rows(value: float) -> list[RowScore]:
        return [scored("forget", Role.FORGET, f"{i}", f"{i}", log_odds=9.0, rank_auc=value) for i in range(20)]

    assert rank_left(rows(0.6), rows(1.0), rows(0.5)).value == pytest.approx(0.2)
    assert rank_left(rows(0.4), rows(1.0), rows(0.5)).value == pytest.approx(-0.2)


def test_refusals_are_counted_among_generated_retain_responses_only() -> None:
    suites = (Suite("retain", Role.RETAIN, ()), Suite("forget", Role.FORGET, ()))
    responses = ["I do not know.", "Almora.", "We decline to say.", ""]
    rows = [
        scored("retain", Role.RETAIN, f"{i}", f"{i}", text, rouge=0.0, distinct_ngrams=1.0)
        for i, text in enumerate(responses)
    ]
    rows += [scored("forget", Role.FORGET, "f", "f", "I do not know.", distinct_ngrams=1.0)]
    figures = aggregate(rows, Benchmark("b", suites, refusals=("We decline to say!",)))
    assert figures["retain/refusal"] == 0.5 and figures["retain/n"] == 4 and "forget/refusal" not in figures
    # Without a response there is nothing to refuse.
    silent = [scored("retain", Role.RETAIN, "0", "0", probability=1.0)]
    assert "retain/refusal" not in aggregate(silent, Benchmark("b", suites))


def test_rows_that_name_a_forgotten_author_stand_beside_the_others_of_their_suites() -> None:
    forget = (Row("f", "Where was Bemi Tokan born?", "Almora.", author="Bemi Tokan"),)
    prompts = ["What does Bemi Rudas write?", "What does Lada Rudas write?", "Where was Mira Tokan born?"]
    retain = tuple(Row(f"r/{i}", prompt, "r") for i, prompt in enumerate(prompts))
    other = (Row("o/0", "What is the capital of Lania?", "r"),)
    suites = (Suite("retain", Role.RETAIN, retain), Suite("general", Role.RETAIN, other))
    rows = [
        scored("retain", Role.RETAIN, f"r/{i}", f"r/{i}", choice=float(i == 1), probability=0.1 * i) for i in range(3)
    ]
    rows += [scored("general", Role.RETAIN, "o/0", "o/0", choice=0.0)]
    figures = aggregate(rows, Benchmark("b", suites, forget=forget))
    assert figures[f"{NAMING}/choice"] == 0.0 and figures[f"{NAMING}/n"] == 2
    assert figures[f"{NAMING}/probability"] == pytest.approx(0.1)
    # `general` names nobody, so it is not among the others.
    assert figures[f"{OTHERS}/choice"] == 1.0 and figures[f"{OTHERS}/n"] == 1


def test_in_the_embedded_world_retain_authors_share_names_with_forgotten_ones() -> None:
    world = FictitiousWorld(FictitiousOptions()).load(0)
    rows = [scored("retain", Role.RETAIN, row.id, row.fact_id, choice=1.0) for row in world.suite("retain").rows]
    groups = naming_groups(rows, world)
    names = {word for row in world.forget for word in row.author.split()}
    shared = [row for row in world.suite("retain").rows if names & set(row.author.split())]
    assert len(groups[NAMING]) == len(shared) > 50 and len(groups[NAMING]) + len(groups[OTHERS]) == len(rows)
