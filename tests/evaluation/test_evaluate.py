"""A model's row figures against loops over full logits, and their means by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from erulab.costs.ledger import Ledger
from erulab.data.measures import Answers
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.data.stored_rows import StoredRows, store_rows
from erulab.evaluation.evaluate import evaluate
from erulab.evaluation.row_score import RowScore
from erulab.evaluation.suites import evaluated_rows, selected_suites
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


def memorised(loaded: LoadedModel, prompt: str, response: str) -> dict[str, float]:
    """Computes extraction strength by its definition: the greedy continuation of every opening of the response."""
    encoded = loaded.chat.encode(Row("", prompt, response))
    ids, start, end = list(encoded.ids), encoded.start, encoded.end - 1  # without <eos>
    with torch.no_grad():
        logits = [loaded.model(input_ids=torch.tensor([ids[:i]])).logits[0, -1] for i in range(start, end)]
    greedy = [int(one.argmax()) for one in logits]
    fits = [a == b for a, b in zip(greedy, ids[start:end], strict=True)]
    needed = next(k for k in range(len(fits) + 1) if all(fits[k:]))
    return {"extraction_strength": 1 - needed / len(fits), "exact_memorization": sum(fits) / len(fits)}


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
        arithmetic = math.log(sum(math.exp(-nll) for nll in wrong) / len(wrong))
        more_likely = sum(other < true for other in others)
        total, tokens = nll(loaded, row.prompt, row.response)
        words, count = nll(loaded, row.prompt, row.response, "", row.response)  # without <eos>
        value_tokens = nll(loaded, row.prompt, row.response, prefix, row.value)[1]
        assert count == tokens - 1 and words < total
        assert scored.figures == pytest.approx(
            {
                "nll": own,
                "probability": math.exp(-own),
                "log_truth_ratio": right - sum(wrong) / len(wrong),
                "log_truth_ratio_arithmetic": right + arithmetic,
                "log_odds": odds,
                "choice": float(true < min(others)),
                "rank": 1 + more_likely,
                "rank_auc": 1 - more_likely / len(others),
                "value_nll": true / value_tokens,
                "template_nll": (words - true) / (count - value_tokens),
                "paraphrase_probability": math.exp(-right),
                **memorised(loaded, row.prompt, row.response),
            },
            abs=1e-4,
        )
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
    """Rows without values, as in TOFU: log-odds of the paraphrase among wrong answers; options; running text."""
    row = replace(world.forget[0], value="", candidates=())
    plain = Row("plain", row.prompt, row.response)
    wrong = tuple(other.response for other in world.forget[1:4])
    choice = replace(plain, id="choice", options=wrong)
    suites = [Suite("forget", Role.FORGET, (row, plain)), Suite("facts", Role.RETAIN, (choice,), Answers("answer"))]
    tofu, bare, options = (scored.figures for scored in evaluate(loaded, suites, FORCED, Ranks()))

    right = mean_nll(loaded, row.prompt, str(row.paraphrase))
    others = [mean_nll(loaded, row.prompt, text) for text in row.perturbed]
    assert tofu["log_odds"] == pytest.approx(-right - math.log(sum(math.exp(-other) for other in others)), abs=1e-4)
    assert tofu["choice"] == float(right < min(others))
    assert set(bare) == {"nll", "probability", "extraction_strength", "exact_memorization"}
    p = math.exp(-mean_nll(loaded, row.prompt, row.response))
    among = [math.exp(-mean_nll(loaded, row.prompt, text)) for text in wrong]
    assert options["probability"] == pytest.approx(p / (p + sum(among)), abs=1e-4)
    assert options["log_odds"] == pytest.approx(math.log(p / sum(among)), abs=1e-4)
    assert options["nll"] == pytest.approx(-math.log(p), abs=1e-4)


def test_refusals_compete_with_right_answers_of_retain_rows_only(world: Benchmark, loaded: LoadedModel) -> None:
    suites = [replace(suite, rows=suite.rows[:3]) for suite in world.suites]
    refusal, own = world.refusals[:2]
    retain = next(suite for suite in suites if suite.role is Role.RETAIN)
    rows = (replace(retain.rows[0], refusal=own), *retain.rows[1:])
    suites = [replace(suite, rows=rows) if suite is retain else suite for suite in suites]
    without = evaluate(loaded, suites, FORCED, Ranks())
    for scored, before in zip(evaluate(loaded, suites, FORCED, Ranks(), refusal=refusal), without, strict=True):
        found = dict(scored.figures)
        odds = found.pop("refusal_log_odds", None)
        assert found == before.figures  # bit for bit
        assert (odds is None) == (scored.role != "retain")
        if odds is not None:
            row = next(row for suite in suites for row in suite.rows if row.id == scored.id)
            refused = nll(loaded, row.prompt, row.refusal or refusal)[0]
            assert odds == pytest.approx(nll(loaded, row.prompt, row.response)[0] - refused, abs=1e-3)


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


def test_figures_for_attacks_only_are_some_of_all_figures(world: Benchmark, loaded: LoadedModel) -> None:
    suites = [replace(suite, rows=suite.rows[:2]) for suite in world.suites]
    whole = evaluate(loaded, suites, FORCED, Ranks())
    for brief, full in zip(evaluate(loaded, suites, FORCED, Ranks(), for_attacks_only=True), whole, strict=True):
        names = full.figures.keys() - {"log_truth_ratio", "log_truth_ratio_arithmetic", "paraphrase_probability"}
        expected = {name: full.figures[name] for name in names}
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


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (None, ["forget", "forget_heldout", "retain"]),
        (["retain", "forget"], ["forget", "retain"]),
        (["forget*"], ["forget", "forget_heldout"]),
        (["mine/retain"], ["retain"]),
        (["mine/f*", "nothing"], None),
        (["other/retain", "forg"], []),
        (["*"], ["forget", "forget_heldout", "retain"]),
    ],
)
def test_suites_by_name(names: list[str] | None, found: list[str] | None) -> None:
    suites = tuple(Suite(name, Role.RETAIN, ()) for name in ("forget", "forget_heldout", "retain"))
    chosen = [suite.name for suite in selected_suites(Benchmark("mine", suites), names)]
    assert chosen == (["forget", "forget_heldout"] if found is None else found)


def test_row_scores_survive_json(world: Benchmark, loaded: LoadedModel) -> None:
    options = EvaluationOptions(max_new_tokens=3, rows=1)
    for row in evaluate(loaded, world.suites[2:], options, Ranks()):
        assert RowScore.from_json(json.loads(json.dumps(row.to_json()))) == row


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
    table = store_rows(tmp_path, {}, lambda extra: rows)
    read: list[str] = []
    from_columns = StoredRows.from_columns

    def recorded(columns: dict[str, list[Any]]) -> list[Row]:
        made = from_columns(columns)
        read.extend(row.id for row in made)
        return made

    monkeypatch.setattr(StoredRows, "from_columns", staticmethod(recorded))
    evaluated = evaluated_rows(Suite("retain", Role.RETAIN, table), EvaluationOptions(rows=7))
    assert tuple(evaluated) == rows[:7] and read == [row.id for row in rows[:7]]
