"""Soft prompts against finite differences, against no prompt, and against each other."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from erulab.attacks.base import Attempt, Repeat
from erulab.attacks.optimising import gradients, optimised
from erulab.attacks.optimising.gradients import encode_target, nll_and_gradient
from erulab.attacks.optimising.optimised import PromptMode
from erulab.attacks.soft_prompt import SoftPrompt, SoftPromptOptions
from erulab.data.rows import Row, Suite
from erulab.models.loaded import LoadedModel
from erulab.models.soft_tokens import embeddings, first_soft_id
from erulab.tokens.insertion import InsertingChatFormat, Place
from tests.attacks.conftest import PlainLab

Models = dict[str, LoadedModel]


def attempts(model: LoadedModel, lab: PlainLab, **options: Any) -> tuple[list[tuple[Attempt, Any]], Any]:
    """Returns each attempt with its row scores, and the scored suites."""
    attack = SoftPrompt(SoftPromptOptions(**options))
    suites = attack.scored({}, lab.benchmark, lab.repeat)
    return [(one, one.score(suites)) for one in attack.attempts(model, {}, lab)], suites


def double(model: LoadedModel) -> LoadedModel:
    copied = model.copy()
    copied.model.double()
    return copied


def with_soft(model: LoadedModel, rows: list[Row], tokens: int) -> list[Any]:
    first = first_soft_id(model.model)
    chat = InsertingChatFormat(model.chat, lambda prompt: range(first, first + tokens), Place.response)
    return [encode_target(chat, row) for row in rows]


def test_without_vectors_all_figures_are_the_plain_ones(models: Models, lab: PlainLab) -> None:
    found, suites = attempts(models["unlearned"], lab, tokens=0)
    plain = lab.score(models["unlearned"], suites)
    assert [(one.chosen, one.changed, one.steps, rows) for one, rows in found] == [
        ({"tokens": 0, "steps": 0}, None, 0, plain)
    ]
    found, _ = attempts(models["unlearned"], lab, tokens=2, steps=0)
    assert found[0][1] == plain and found[1][0].chosen == {"tokens": 2, "steps": 0} and found[1][1] != plain


def test_the_gradient_is_that_of_finite_differences(models: Models, lab: PlainLab) -> None:
    model = double(models["unlearned"])
    # More rows than one forward takes.
    rows = [row for suite in optimised.answered_suites(lab.benchmark) for row in suite.rows][: gradients.ROWS + 2]
    encoded = with_soft(model, rows, 2)
    vectors = embeddings(model.model)[[5, 9]]
    nll, gradient = nll_and_gradient(model, encoded, vectors)
    assert nll.shape == (len(rows),) and not gradient.requires_grad
    # Norms and rotations compute in float32 whatever the model: a larger step, and the entries that matter most.
    for place, entry in ((place, int(gradient[place].abs().argmax())) for place in range(2)):
        moved = [vectors.clone() for _ in range(2)]
        moved[0][place, entry] += 1e-3
        moved[1][place, entry] -= 1e-3
        up, down = (nll_and_gradient(model, encoded, one)[0].sum() for one in moved)
        assert gradient[place, entry].item() == pytest.approx(((up - down) / 2e-3).item(), rel=5e-3)
    assert all(parameter.grad is None for parameter in model.model.parameters())


def test_what_is_made_likely_is_the_value_where_a_row_has_one(models: Models, lab: PlainLab) -> None:
    chat, row = models["target"].chat, lab.benchmark.suite("forget").rows[0]
    found = encode_target(chat, row)
    assert chat.decode(found.ids[found.start :]).strip() == row.value
    whole = chat.encode(row)
    bare = replace(row, value="", candidates=())
    assert encode_target(chat, bare) == whole
    first = encode_target(chat, bare, 3)
    assert (first.ids, first.start, first.end) == (whole.ids[: whole.start + 3], whole.start, whole.start + 3)


def test_each_step_moves_every_entry_by_the_step_and_the_trained_answers_become_likely(
    models: Models, lab: PlainLab, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def recorded(*arguments: Any) -> Any:
        found = nll_and_gradient(*arguments)
        seen.append((arguments[2].clone(), float(found[0].mean())))
        return found

    monkeypatch.setattr(gradients, "nll_and_gradient", recorded)
    model = models["oracle"]  # has most to gain
    before = model.ledger.spent
    found, suites = attempts(model, lab, tokens=10, steps=20, step=0.2)
    assert [one.chosen["steps"] for one, _ in found] == [0, 0, 7, 13, 20]
    rms = embeddings(model.model).square().mean().sqrt()
    torch.testing.assert_close((seen[1][0] - seen[0][0]).abs(), (0.2 * rms).expand_as(seen[0][0]))
    assert seen[-1][1] < 0.75 * seen[0][1]
    assert model.ledger.spent.flops_backward > before.flops_backward and model.ledger.spent.flops_adversary == 0
    trained = {
        row.fact
        for rows in optimised.target_rows(lab.benchmark, PromptMode.universal, 50, lab.repeat).values()
        for row in rows
    }
    assert not trained & {row.fact for suite in suites for row in suite.rows}


def test_per_item_results_do_not_depend_on_other_items(models: Models, lab: PlainLab) -> None:
    options = {"mode": PromptMode.per_item, "tokens": 5, "steps": 6, "step": 0.2}
    both, suites = attempts(models["oracle"], lab, facts=2, **options)
    kept = {row.id for row in suites[0].rows[:1]}
    one_suite: Suite = replace(suites[0], rows=suites[0].rows[:1])
    alone_lab = replace(lab, benchmark=replace(lab.benchmark, suites=(one_suite,)))
    alone, _ = attempts(models["oracle"], alone_lab, facts=None, **options)
    for (one, rows), (other, expected) in zip(both, alone, strict=True):
        mine = [row for row in rows if row.id in kept]
        assert one.chosen == other.chosen and len(mine) == 1 == len(expected)
        assert mine[0].figures == pytest.approx(expected[0].figures, abs=1e-3)
    # Each vector is optimised for its own answer.
    first, last = (np.mean([row.figures["log_odds"] for row in both[i][1]]) for i in (1, -1))
    assert last > first + 0.5


def test_repeats_begin_elsewhere_and_responses_are_generated_behind_the_vectors(models: Models, lab: PlainLab) -> None:
    whole = replace(lab, evaluation=replace(lab.evaluation, generate=True, max_new_tokens=12))
    bare = replace(
        whole,
        benchmark=replace(
            lab.benchmark,
            suites=tuple(
                replace(suite, rows=tuple(replace(row, value="", candidates=(), prefix="") for row in suite.rows[:16]))
                for suite in lab.benchmark.suites
                if suite.name == "forget"
            ),
        ),
    )
    found, _ = attempts(models["target"], bare, tokens=2, steps=0)
    again, _ = attempts(models["target"], dataclasses.replace(bare, repeat=Repeat(0, 1)), tokens=2, steps=0)
    assert all("rouge" in row.figures and row.response for row in found[1][1])
    assert {row.id: row.figures for row in found[1][1]} != {row.id: row.figures for row in again[1][1]}


def test_running_text_gets_its_vectors_before_the_response(models: Models, lab: PlainLab) -> None:
    plain = tuple(
        replace(suite, rows=tuple(replace(row, plain=True) for row in suite.rows)) for suite in lab.benchmark.suites
    )
    running = replace(lab, benchmark=replace(lab.benchmark, suites=plain))
    found, suites = attempts(models["target"], running, tokens=2, steps=2)
    assert found[0][1] == running.score(models["target"], suites) != found[-1][1]
    assert all(len(rows) == sum(len(suite.rows) for suite in suites) for _, rows in found)
