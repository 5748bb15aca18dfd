"""A local judge's log-odds against ten lines with the model's own logits; kept answers survive a cut line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from erulab.evaluation.judging.answers import Answer, AnswerFile
from erulab.evaluation.judging.local import TOGETHER, LocalJudge
from erulab.models.loaded import LoadedModel
from erulab.ranks import Ranks
from erulab.tokens.chat import ChatFormat
from erulab.tokens.templates import TEMPLATES
from tests.evaluation.conftest import on_ranks
from tests.models.conftest import byte_level

CONTEXT = 64


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    """A random model that reads bytes, with a chat template."""
    tokenizer = byte_level()
    tokenizer.chat_template = TEMPLATES["plain"]
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=CONTEXT, initializer_range=0.4
    )
    return LoadedModel(GPT2LMHeadModel(config).eval(), tokenizer, ChatFormat(tokenizer, CONTEXT))


def judge_of(loaded: LoadedModel, ranks: Ranks | None = None) -> LocalJudge:
    return LocalJudge(loaded, 512, ranks or Ranks())


def probability(loaded: LoadedModel, prompt: str, word: str) -> float:
    """Returns P(word | prompt), token by token from full logits, in float64."""
    tokenizer = loaded.tokenizer
    opening = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}, {"role": "assistant", "content": word}], tokenize=False
    )
    before = tokenizer(opening, add_special_tokens=False).input_ids
    end = tokenizer(whole[: whole.index(word, len(opening)) + len(word)], add_special_tokens=False).input_ids
    assert end[: len(before)] == before
    total = 1.0
    for position in range(len(before), len(end)):
        logits = loaded.model(torch.tensor([end[:position]])).logits[0, -1].double()
        total *= logits.softmax(-1)[end[position]].item()
    return total


def test_log_odds_are_those_of_the_words(loaded: LoadedModel) -> None:
    prompts = ["Was Ada born there?", "Hm", "Does the response state it? yes"]
    found = judge_of(loaded).log_odds(prompts)
    for prompt, value in zip(prompts, found, strict=True):
        yes = probability(loaded, prompt, "yes") + probability(loaded, prompt, "Yes")
        no = probability(loaded, prompt, "no") + probability(loaded, prompt, "No")
        assert value == pytest.approx(float(torch.tensor(yes / no).log()), abs=1e-4)
    assert len({round(value or 0, 3) for value in found}) == 3


def test_answers_follow_the_sign_and_a_prompt_without_room_is_unjudged(loaded: LoadedModel) -> None:
    prompts = [f"Was it {i}?" for i in range(TOGETHER + 6)] + ["long " * CONTEXT]
    kept: list[Answer] = []
    judge_of(loaded).ask(prompts, kept.append, lambda: False)
    assert [answer.prompt for answer in kept] == prompts
    for answer in kept[:-1]:
        assert answer.log_odds is not None and answer.holds is (answer.log_odds > 0)
    assert {answer.holds for answer in kept[:-1]} == {True, False}
    assert kept[-1] == Answer(prompts[-1], "", None) and kept[-1].holds is None


def test_ranks_share_the_work_and_each_has_all_answers(loaded: LoadedModel) -> None:
    prompts = [f"Was it {i}?" for i in range(5)]

    def asked(ranks: Ranks) -> list[Answer]:
        kept: list[Answer] = []
        judge_of(loaded, ranks).ask(prompts, kept.append, lambda: False)
        return kept

    alone = asked(Ranks())
    first, second = on_ranks(2, asked)
    assert first == second and [answer.prompt for answer in first] == prompts
    for one, other in zip(first, alone, strict=True):
        assert one.log_odds == pytest.approx(other.log_odds, abs=1e-5)


def test_it_stops_between_two_portions(loaded: LoadedModel) -> None:
    kept: list[Answer] = []
    judge_of(loaded).ask([f"{i}?" for i in range(TOGETHER + 1)], kept.append, lambda: bool(kept))
    assert len(kept) == TOGETHER


def test_a_line_that_was_cut_is_asked_again(tmp_path: Path) -> None:
    file = AnswerFile(tmp_path / "answers.jsonl")
    assert file.read() == {}
    first, second = Answer("a\nb\u2028", "yes\r\n"), Answer("c", "no", -1.5)
    file.add(first)
    file.add(second)
    path = tmp_path / "answers.jsonl"
    path.write_bytes(path.read_bytes()[:-9])  # a crash in the second line
    assert file.read() == {first.prompt: first}
    file.write(file.read())
    file.add(second)
    assert file.read() == {first.prompt: first, "c": second}
