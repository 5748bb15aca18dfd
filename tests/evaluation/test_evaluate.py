"""A model's row figures against loops over full logits, and their means by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from erulab.costs.ledger import Ledger
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.data.tables import RowTable, row_table
from erulab.evaluation.evaluate import RowScore, aggregate, evaluate, forget_quality, rows_of
from erulab.models.loaded import LoadedModel
from erulab.options import EvaluationOptions
from erulab.ranks import Ranks
from tests.evaluation.conftest import on_ranks, small_world

FORCED = EvaluationOptions(generate=False)


def nll(loaded: LoadedModel, prompt: str, response: str, first: str = "", asked: str = "") -> tuple[float, int]:
    """Sequence NLL and tokens of a response, or of the part `asked` after `first`, by full logits of this text alone.

    The words are split here, not by the chat format: a response ends with <eos>, a value does not.
    """
    encode = loaded.tokenizer.get_vocab().__getitem__
    pieces = loaded.tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str
    words = [word for word, _ in pieces(response)] + ["<eos>"]
    ids = [encode("<bos>"), *[encode(word) for word, _ in pieces(prompt)], encode("\n")]
    start, count = len(ids), len(words)
    if asked:
        start, count = start + len(pieces(first)), len(pieces(" " + asked))
    ids += [encode(word) for word in words]
    with torch.no_grad():
        logp = loaded.model(input_ids=torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return -sum(float(logp[i - 1, ids[i]]) for i in range(start, start + count)), count


def mean_nll(loaded: LoadedModel, prompt: str, response: str) -> float:
    total, tokens = nll(loaded, prompt, response)
    return total / tokens


def test_figures_of_rows_with_values(world: Benchmark, loaded: LoadedModel) -> None:
    suites = [replace(suite, rows=suite.rows[:3]) for suite in world.suites]
    rows = [row for suite in suites for row in suite.rows]
    for row, scored in zip(rows, evaluate(loaded, suites, FORCED, Ranks()), strict=True):
        assert row.value and row.paraphrase is not None
        own = mean_nll(loaded, row.prompt, row.response)
        right = mean_nll(loaded, row.prompt, row.paraphrase)
        wrong = [mean_nll(loaded, row.prompt, text) for text in row.perturbed]
        rest = row.response.removeprefix(row.prefix + row.value)
        prefix = row.prefix.rstrip()
        true, *others = [
            nll(loaded, row.prompt, row.prefix + value + rest, prefix, value)[0]
            for value in (row.value, *row.candidates)
        ]
        odds = -true - math.log(sum(math.exp(-other) for other in others))
        assert scored.figures == pytest.approx({
            "nll": own, "probability": math.exp(-own), "log_truth_ratio": right - sum(wrong) / len(wrong),
            "log_odds": odds, "choice": float(true < min(others)),
        }, abs=1e-4)  # fmt: skip
        assert (scored.id, scored.fact, scored.author) == (row.id, row.fact, row.author)


def test_values_of_several_words_are_scored_as_sums(world: Benchmark, loaded: LoadedModel) -> None:
    row = world.forget[0]
    one, two, three = row.candidates[0], " ".join(row.candidates[1:3]), " ".join(row.candidates[3:6])
    rest = row.response.removeprefix(row.prefix + row.value)
    long = replace(row, value=two, response=row.prefix + two + rest, candidates=(one, three))
    (scored,) = evaluate(loaded, [Suite("forget", Role.FORGET, (long,))], FORCED, Ranks())
    true, *others = [
        nll(loaded, row.prompt, row.prefix + value + rest, row.prefix.rstrip(), value)[0] for value in (two, one, three)
    ]
    odds = -true - math.log(sum(math.exp(-other) for other in others))
    assert scored.figures["log_odds"] == pytest.approx(odds, abs=1e-4)


def test_figures_without_values(world: Benchmark, loaded: LoadedModel) -> None:
    """TOFU's rows: log-odds of the paraphrase among wrong answers, by their means; options; plain text."""
    row = replace(world.forget[0], value="", candidates=())
    plain = Row("plain", row.prompt, row.response)
    wrong = tuple(other.response for other in world.forget[1:4])
    choice = replace(plain, id="choice", options=wrong)
    suites = [Suite("forget", Role.FORGET, (row, plain)), Suite("facts", Role.RETAIN, (choice,), "answer")]
    tofu, bare, options = (scored.figures for scored in evaluate(loaded, suites, FORCED, Ranks()))

    right = mean_nll(loaded, row.prompt, str(row.paraphrase))
    others = [mean_nll(loaded, row.prompt, text) for text in row.perturbed]
    assert tofu["log_odds"] == pytest.approx(-right - math.log(sum(math.exp(-other) for other in others)), abs=1e-4)
    assert tofu["choice"] == float(right < min(others))
    assert set(bare) == {"nll", "probability"}
    p = math.exp(-mean_nll(loaded, row.prompt, row.response))
    among = [math.exp(-mean_nll(loaded, row.prompt, text)) for text in wrong]
    assert options["probability"] == pytest.approx(p / (p + sum(among)), abs=1e-4)
    assert options["log_odds"] == pytest.approx(math.log(p / sum(among)), abs=1e-4)
    assert options["nll"] == pytest.approx(-math.log(p), abs=1e-4)


def test_a_row_scores_the_same_alone_and_in_any_batch(world: Benchmark, loaded: LoadedModel) -> None:
    together = evaluate(loaded, world.suites, replace(FORCED, batch_tokens=500), Ranks())
    for scored in together[::17]:
        suite = world.suite(scored.suite)
        row = next(row for row in suite.rows if row.id == scored.id)
        (alone,) = evaluate(loaded, [replace(suite, rows=(row,))], FORCED, Ranks())
        assert alone.figures == pytest.approx(scored.figures, abs=1e-5)


def test_two_ranks_evaluate_what_one_does(world: Benchmark, loaded: LoadedModel) -> None:
    options = EvaluationOptions(max_new_tokens=6, rows=4)
    suites = [replace(suite, rows=suite.rows[:7]) for suite in world.suites]
    one = evaluate(loaded, suites, options, Ranks())
    for rows in on_ranks(2, lambda ranks: evaluate(loaded, suites, options, ranks)):
        assert [(row.suite, row.id, row.response) for row in rows] == [(r.suite, r.id, r.response) for r in one]
        for mine, other in zip(rows, one, strict=True):
            assert mine.figures == pytest.approx(other.figures, abs=1e-5)


def test_the_headline_is_part_of_the_whole(world: Benchmark, loaded: LoadedModel) -> None:
    suites = [replace(suite, rows=suite.rows[:2]) for suite in world.suites]
    whole = evaluate(loaded, suites, FORCED, Ranks())
    for brief, full in zip(evaluate(loaded, suites, FORCED, Ranks(), headline=True), whole, strict=True):
        expected = {name: full.figures[name] for name in ("nll", "probability", "log_odds", "choice")}
        assert brief.figures == pytest.approx(expected, abs=1e-5)


def test_generated_figures_and_row_limits(world: Benchmark, loaded: LoadedModel) -> None:
    suites = (world.suite("forget"), world.suite("retain"))
    rows = evaluate(loaded, suites, EvaluationOptions(max_new_tokens=5, rows=3), Ranks())
    # Every forget row is scored; a retain suite is cut.
    assert [row.suite for row in rows] == ["forget"] * len(suites[0].rows) + ["retain"] * 3
    for row, source in zip(rows, (*suites[0].rows, *suites[1].rows[:3]), strict=True):
        assert row.figures["exact_match"] == float(row.response.strip() == source.response)
        assert 0 <= row.figures["rouge"] <= 1
    assert all("rouge" not in row.figures for row in evaluate(loaded, suites, replace(FORCED, rows=1), Ranks()))


def test_row_scores_survive_json(world: Benchmark, loaded: LoadedModel) -> None:
    options = EvaluationOptions(max_new_tokens=3, rows=1)
    for row in evaluate(loaded, world.suites[2:], options, Ranks()):
        assert RowScore.from_json(json.loads(json.dumps(row.to_json()))) == row


def scored(suite: str, role: Role, number: int, **figures: float) -> RowScore:
    return RowScore(f"{suite}/{number}", suite, role.value, f"fact/{number}", "", figures)


def test_means_by_suite_and_model_utility() -> None:
    row = Row("r", "p", "r")
    suites = [
        Suite("forget", Role.FORGET, (row,)), Suite("heldout", Role.HELDOUT, (row,)),
        Suite("retain", Role.RETAIN, (row,), in_utility=True), Suite("facts", Role.RETAIN, (row,), in_utility=True),
        Suite("unseen", Role.UNSEEN, (row,)), Suite("empty", Role.RETAIN, ()),
    ]  # fmt: skip
    rows = [
        scored("forget", Role.FORGET, 0, probability=0.2, log_odds=-1.0, choice=0.0, log_truth_ratio=math.log(2)),
        scored("forget", Role.FORGET, 1, probability=0.4, log_odds=3.0, choice=1.0, log_truth_ratio=-math.log(4)),
        scored("heldout", Role.HELDOUT, 0, probability=0.6, log_odds=7.0, choice=1.0),
        scored("retain", Role.RETAIN, 2, probability=0.9, rouge=0.5, log_odds=99.0, log_truth_ratio=-math.log(4)),
        scored("facts", Role.RETAIN, 3, probability=0.8, rouge=1.0, log_truth_ratio=-math.log(2)),
        scored("unseen", Role.UNSEEN, 4, probability=0.1, rouge=0.0),
    ]
    result = aggregate(rows, suites)
    assert result["forget/n"] == 2 and result["forget/probability"] == pytest.approx(0.3)
    assert result["forget/choice"] == 0.5 and result["forget/truth_ratio"] == pytest.approx((1 / 2 + 1 / 4) / 2)
    assert result["retain/truth_ratio"] == pytest.approx(3 / 4)
    assert result["knowledge"] == pytest.approx(3.0)  # forget and held-out rows only
    components = (0.9, 0.5, 0.75, 0.8, 1.0, 0.5)
    assert result["model_utility"] == pytest.approx(6 / sum(1 / c for c in components))
    assert not any(name.startswith("empty") for name in result) and "unseen/log_odds" not in result
    # A component that is zero makes the utility zero; one that was not measured leaves it out.
    assert (
        aggregate([*rows[:3], replace(rows[3], figures=rows[3].figures | {"rouge": 0.0}), *rows[4:]], suites)[
            "model_utility"
        ]
        == 0.0
    )
    assert "model_utility" not in aggregate(rows[:4], suites)


def test_forget_quality_compares_the_rows_that_the_request_names() -> None:
    def rows(shift: float) -> list[RowScore]:
        named = [scored("forget", Role.FORGET, i, log_truth_ratio=shift + i / 40) for i in range(40)]
        return [*named, scored("heldout", Role.HELDOUT, 0, log_truth_ratio=99.0 * shift)]

    assert forget_quality(rows(0.0), rows(0.0)) == 1.0
    assert forget_quality(rows(9.0), rows(0.0)) == pytest.approx(1.9e-23, rel=0.05)
    assert forget_quality([scored("forget", Role.FORGET, 0, nll=1.0)], rows(0.0)) is None


def test_scoring_and_generation_are_counted_as_torch_counts_them(loaded: LoadedModel) -> None:
    """Eager attention, whose products torch counts on a CPU."""
    counted = replace(loaded.copy(), ledger=Ledger())
    counted.model.set_attn_implementation("eager")
    suites = [replace(suite, rows=suite.rows[:2]) for suite in small_world().suites]
    with FlopCounterMode(display=False) as counter:
        evaluate(counted, suites, replace(FORCED, generate=True, max_new_tokens=5), Ranks())
    assert counted.ledger.take().flops_forward == counter.get_total_flops()


def test_of_a_long_file_only_the_rows_that_are_evaluated_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = tuple(Row(str(i), f"question {i}", f"answer {i}") for i in range(1000))
    table = row_table(tmp_path, {}, lambda extra: rows)
    read: list[int] = []
    item = RowTable.item
    monkeypatch.setattr(RowTable, "item", lambda self, index: read.append(index) or item(self, index))
    monkeypatch.setattr(RowTable, "__iter__", None)
    evaluated = rows_of(Suite("retain", Role.RETAIN, table), EvaluationOptions(rows=7))
    assert tuple(evaluated) == rows[:7] and read == list(range(7))
