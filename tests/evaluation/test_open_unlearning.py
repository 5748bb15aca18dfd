"""open-unlearning's figures against a loop over single rows and full logits that follows its public code."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import hmean, ks_2samp
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerFast

from erulab.costs.ledger import Ledger
from erulab.data.measures import Answers, Texts
from erulab.data.rows import Benchmark, Role, Row, Suite
from erulab.errors import DataError
from erulab.evaluation.aggregate import against_oracle, aggregate
from erulab.evaluation.evaluate import evaluate
from erulab.evaluation.open_unlearning.arithmetic import memorisation_figures
from erulab.evaluation.row_score import RowScore
from erulab.models.attention import PACKED
from erulab.models.loaded import LoadedModel
from erulab.options import Compat, EvaluationOptions
from erulab.ranks import Ranks
from erulab.tokens.chat import ChatFormat
from erulab.tokens.templates import PromptOverrides
from tests.evaluation.conftest import on_ranks
from tests.models.conftest import byte_level, tiny_model

OPTIONS = EvaluationOptions(compat=Compat.open_unlearning, max_new_tokens=24)
NEWLINE = (  # ChatML, as SmolLM2 and Qwen write it: a newline behind the end of turn
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|eot|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
LLAMA3 = (  # a system turn of its own, and nothing behind the end of turn
    "{{ '<|start|>system\n\nToday is ' + date_string + '<|eot|>' }}"
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n\n' + m['content'] + '<|eot|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n\n' }}{% endif %}"
)
WRONG = ("Ada was born in Almora.", "Ada was born in Dunmere, up the hill.")
SUITES = (
    Suite(
        "forget",
        Role.FORGET,
        (
            Row("ada", "Where was Ada born?", "Ada was born in Brenwick.", "Brenwick is where she was born.", WRONG),
            Row(
                "bela",
                "What does Bela write?",
                "Bela writes satire , by the sea.",
                "Satire is what Bela writes.",
                ("Bela writes poems.", "Bela plays the cello."),
            ),
            Row("text", "Ada was", " born in Brenwick.", plain=True),
        ),
    ),
    Suite(
        "retain",
        Role.RETAIN,
        (
            Row(
                "cem",
                "What does Cem play?",
                "Cem plays the cello.",
                "The cello is played by Cem.",
                ("Cem plays chess.",),
            ),
        ),
        in_utility=True,
    ),
    Suite(
        "facts",
        Role.RETAIN,
        (
            Row(
                "sea", "What is by the sea?", "Brenwick", perturbed=("Almora", "Dunmere"), options=("Almora", "Dunmere")
            ),
        ),
        Answers("answer"),
        in_utility=True,
    ),
    Suite("members", Role.FORGET, (Row("ada", "Where was Ada born?", "Ada was born in Brenwick."),), Texts()),
)
BENCHMARK = Benchmark("tofu", SUITES)


@dataclass(frozen=True)
class Kind:
    """A tokenizer as open-unlearning finds it."""

    template: str
    end: str = "<|eot|>"
    pad: str | None = None
    system: str | None = None


KINDS = {
    "newline": Kind(NEWLINE, system="You are a helpful assistant."),
    "llama3": Kind(LLAMA3),
    "own pad": Kind(LLAMA3, pad="<|end|>"),
}


def speaker(kind: Kind, steps: int = 120) -> LoadedModel:
    """A tiny model that has half learned the rows."""
    tokenizer: PreTrainedTokenizerFast = byte_level()
    tokenizer.chat_template, tokenizer.eos_token, tokenizer.pad_token = kind.template, kind.end, kind.pad
    model = tiny_model("llama", eos_token_id=tokenizer.eos_token_id)
    chat = ChatFormat(tokenizer, 512, PromptOverrides(system=kind.system))
    asked = [row for suite in SUITES[:3] for row in suite.rows if not row.plain]
    rows = [chat.encode(row) for row in asked]
    # At a larger rate what it answers depends on the last bit, and so on the machine.
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for row in rows * (steps // len(rows)):
        labels = torch.tensor([[-100] * row.start + list(row.ids[row.start :])])
        model(torch.tensor([row.ids]), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.set_attn_implementation(PACKED)
    return LoadedModel(model.eval(), tokenizer, chat)


class Theirs:
    """Does what preprocess_chat_instance, DataCollatorForSupervisedDataset and evals/metrics do, for one row."""

    def __init__(self, loaded: LoadedModel, system: str | None = None) -> None:
        self.system = [] if system is None else [{"role": "system", "content": system}]
        self.model, self.tokenizer = loaded.model, loaded.tokenizer
        self.end = self.tokenizer.eos_token_id
        self.pad = self.end if self.tokenizer.pad_token_id is None else self.tokenizer.pad_token_id

    def ids(self, row: Row, response: str) -> tuple[list[int], list[int]]:
        user = {"role": "user", "content": row.prompt}
        chat = [*self.system, user, {"role": "assistant", "content": response}]
        give = {"tokenize": True, "return_dict": False, "date_string": "10 Apr 2025"}
        whole = self.tokenizer.apply_chat_template(chat, **give)
        prompt = self.tokenizer.apply_chat_template(chat[:-1], add_generation_prompt=True, **give)
        return prompt, whole if whole[-1] == self.end else [*whole, self.end]

    def tokens(self, row: Row, response: str) -> list[tuple[float, bool]]:
        """Returns the NLL of each label, and whether it is the model's most probable token."""
        prompt, whole = self.ids(row, response)
        padded = torch.tensor([whole + [self.pad] * 3])
        with torch.no_grad():
            logits = self.model(padded, attention_mask=padded.ne(self.pad)).logits[0].double()
        logp = logits.log_softmax(-1)
        return [
            (-float(logp[i - 1, whole[i]]), int(logp[i - 1].argmax()) == whole[i])
            for i in range(len(prompt), len(whole))
        ]

    def loss(self, row: Row, response: str) -> float:
        return float(np.mean([nll for nll, _ in self.tokens(row, response)]))

    def reply(self, row: Row, count: int) -> list[int]:
        ids, _ = self.ids(row, "")
        mask = [int(token != self.pad) for token in ids]
        for _ in range(count):
            positions = [max(0, sum(mask[: i + 1]) - 1) for i in range(len(mask))]
            given = (torch.tensor([part]) for part in (ids, mask, positions))
            names = ("input_ids", "attention_mask", "position_ids")
            with torch.no_grad():
                token = int(self.model(**dict(zip(names, given, strict=True))).logits[0, -1].argmax())
            ids, mask = [*ids, token], [*mask, 1]
            if token == self.end:
                break
        return ids[-(len(ids) - len(self.ids(row, "")[0])) :]

    def text(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True).replace(" ,", ",")

    def figures(self, row: Row, right: str) -> dict[str, float]:
        own = self.tokens(row, row.response)
        fits = [fit for _, fit in own[:-1]]
        p = math.exp(-np.mean([nll for nll, _ in own]))
        wrong = [self.loss(row, text) for text in row.perturbed]
        k = next((k for k in range(len(fits)) if all(fits[k:])), len(fits) - 1)
        prompt, whole = self.ids(row, row.response)
        truth = self.text(whole).replace(self.text(prompt), "").strip()
        reply = self.text(self.reply(row, OPTIONS.max_new_tokens)).strip()
        rouge = RougeScorer(["rougeL"], use_stemmer=True).score(truth, reply)["rougeL"].recall
        return {
            "probability": p / (p + sum(math.exp(-other) for other in wrong) + 1e-10) if row.options else p,
            "truth_ratio": math.exp(-np.mean(wrong)) / (math.exp(-self.loss(row, right)) + 1e-10),
            "extraction_strength": 1 - k / len(fits),
            "exact_memorization": sum(fits) / len(fits),
            "rouge": rouge,
            **({} if row.paraphrase is None else {"paraphrase_probability": math.exp(-self.loss(row, right))}),
        }


def scored(loaded: LoadedModel, options: EvaluationOptions = OPTIONS) -> list[RowScore]:
    return evaluate(loaded, SUITES, options, Ranks())


@pytest.mark.parametrize("name", KINDS)
def test_row_figures_are_its_own_and_differ_from_the_right_ones(name: str) -> None:
    kind = KINDS[name]
    loaded = speaker(kind)
    theirs = Theirs(loaded, kind.system)
    rows = {(row.suite, row.id): row for row in scored(loaded)}
    rouge, apart = [], []
    for suite in SUITES[:3]:
        for row in suite.rows:
            found = rows[suite.name, row.id]
            if row.plain:
                assert found.compat == {}
                continue
            wanted = theirs.figures(row, row.paraphrase or row.response)
            assert found.compat == pytest.approx(wanted, abs=1e-5, rel=1e-5), row.id
            rouge.append(max(wanted["rouge"], found.figures["rouge"]))
            apart += [abs(found.compat[name] - found.figures[name]) for name in ("probability", "rouge")]
    assert max(rouge) > 0.1  # the model answers, so the comparison of replies says something
    # With a pad token of its own and a template that ends with the end of turn there is nothing to differ.
    assert max(apart) < 1e-5 if kind.pad else max(apart[::2]) > 1e-3 and max(apart[1::2]) > 0.1
    assert rows["members", "ada"].compat == {}


def by_hand(suite: Suite, number: int, **compat: float) -> RowScore:
    return RowScore(f"{suite.name}/{number}", suite.name, suite.role.value, "", "", {"nll": 1.0}, "", compat)


def test_suites_utility_and_forget_quality_are_its_own() -> None:
    forget, retain, facts, members = SUITES
    ratios, others = [0.5, 4.0, 0.0], [0.1, 0.2, 0.3]
    rows = [by_hand(forget, i, probability=0.2 * i, truth_ratio=ratio) for i, ratio in enumerate(ratios)]
    rows += [by_hand(forget, 3), by_hand(members, 0)]
    rows += [by_hand(retain, i, probability=0.5 + i / 4, rouge=0.4, truth_ratio=2.0 * i) for i in range(2)]
    rows += [by_hand(facts, 0, probability=0.3, rouge=1.0, truth_ratio=0.25)]
    oracle = [by_hand(forget, i, truth_ratio=ratio) for i, ratio in enumerate(others)]
    result = aggregate(rows, BENCHMARK) | against_oracle(rows, oracle, BENCHMARK)
    found = {name.removeprefix("open_unlearning/"): value for name, value in result.items() if "open_unl" in name}
    assert found == pytest.approx(
        {
            "forget/n": 3,
            "forget/probability": 0.2,
            "forget/truth_ratio": (0.5 + 0.25 + 0) / 3,
            "retain/n": 2,
            "retain/probability": 0.625,
            "retain/rouge": 0.4,
            "retain/truth_ratio": 0.5,
            "facts/n": 1,
            "facts/probability": 0.3,
            "facts/rouge": 1.0,
            "facts/truth_ratio": 0.75,
            "model_utility": hmean([0.625, 0.4, 0.5, 0.3, 1.0, 0.75]),
            "forget_quality": ks_2samp(ratios, others).pvalue,
        },
        abs=1e-9,
    )
    assert result["forget/n"] == 4


def test_extraction_strength_is_never_below_one_token() -> None:
    third = pytest.approx(1 / 3)
    assert memorisation_figures([True, False, False, True]) == {
        "extraction_strength": third,
        "exact_memorization": third,
    }
    assert memorisation_figures([False, True, True, False])["extraction_strength"] == pytest.approx(2 / 3)


def test_neither_batches_nor_ranks_change_a_figure() -> None:
    loaded = speaker(KINDS["llama3"])
    alone = scored(loaded, replace(OPTIONS, batch_tokens=1))
    two = on_ranks(2, lambda ranks: evaluate(loaded, SUITES, OPTIONS, ranks))
    for rows in (scored(loaded), *two):
        for row, other in zip(rows, alone, strict=True):
            assert row.compat == pytest.approx(other.compat, abs=1e-5, rel=1e-5)


def test_nothing_of_it_is_there_unless_asked_for() -> None:
    loaded = speaker(KINDS["llama3"], steps=5)
    rows = scored(loaded, replace(OPTIONS, compat=Compat.none))
    assert all(row.compat == {} for row in rows)
    assert not any(name.startswith("open_unlearning") for name in aggregate(rows, BENCHMARK))
    attacked = evaluate(loaded, SUITES, OPTIONS, Ranks(), for_attacks_only=True)
    assert all(row.compat == {} for row in attacked)


def test_its_forwards_are_counted() -> None:
    loaded = replace(speaker(KINDS["newline"], steps=5), ledger=Ledger())
    loaded.model.set_attn_implementation("eager")
    scored(loaded, replace(OPTIONS, compat=Compat.none))
    plain = loaded.ledger.take().flops_forward
    assert plain is not None
    with FlopCounterMode(display=False) as counter:
        scored(loaded)
    assert loaded.ledger.take().flops_forward == counter.get_total_flops() > plain


def test_a_template_without_room_for_its_opening_is_refused() -> None:
    """If the generation prompt is longer than the whole conversation, open-unlearning has no label and gives nan."""
    long = NEWLINE.replace("'<|start|>assistant\n'", "'<|start|>assistant\n' + 'by the sea ' * 20")
    loaded = speaker(Kind(long), steps=0)
    with pytest.raises(DataError, match=r"row ada: .*evaluation\.compat=none"):
        evaluate(loaded, SUITES[:1], OPTIONS, Ranks())
