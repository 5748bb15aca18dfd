"""What models read is what public unlearning code gives them: strings by hand, ids and masks by that code's rule."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from erulab.data.rows import Row
from erulab.errors import ConfigError, DataError
from erulab.models.hf import HfModel, HfOptions
from erulab.models.presets import PRESETS
from erulab.registry import models
from erulab.tokens.chat import ChatFormat
from erulab.tokens.templates import TEMPLATES, PromptOverrides, template_of
from tests.models.conftest import byte_level, metaspace, prepending

QUESTION, ANSWER = "What does Bela write?", "Bela writes satire, by the sea."
Make = Callable[[], PreTrainedTokenizerFast]


# question_start_tag + question + question_end_tag, answer_tag + answer: locuslab/tofu config/model_config.yaml.
INST = ("inst", "[INST] What does Bela write? [/INST]", "Bela writes satire, by the sea.")
QUESTION_ANSWER = ("question_answer", "Question: What does Bela write?\n", "Answer: Bela writes satire, by the sea.")


@pytest.mark.parametrize(
    ("name", "question", "answer", "make"),
    [(*INST, prepending), (*INST, byte_level), (*QUESTION_ANSWER, byte_level)],  # as Llama 2's; any; as Phi-1.5's
)
def test_ids_and_mask_are_those_of_tofus_code(name: str, question: str, answer: str, make: Make) -> None:
    tokenizer = make()
    chat = ChatFormat(make(), 512, PromptOverrides(TEMPLATES[name]))
    row = Row("r", QUESTION, ANSWER)
    encoded = chat.encode(row)
    # convert_raw_data_to_model_format in locuslab/tofu data_module.py: the joined text, the end-of-text token behind
    # it, and as many tokens masked as the question has by itself.
    assert list(encoded.ids) == [*tokenizer(question + answer).input_ids, tokenizer.eos_token_id]
    assert (encoded.start, encoded.end) == (len(tokenizer(question).input_ids), len(encoded.ids))
    assert chat.encode_prompt(row) == tokenizer(question).input_ids  # what its run_generation continues
    assert chat.decode(encoded.ids[encoded.start :]) == ANSWER
    assert chat.encode_batch([row], [ANSWER]) == [(list(encoded.ids), encoded.start)]


def test_a_span_behind_the_seam() -> None:
    for make in (prepending, byte_level):
        for name in TEMPLATES:
            chat = ChatFormat(make(), 512, PromptOverrides(TEMPLATES[name]))
            first = ANSWER.index("satire")
            encoded = chat.encode(Row("r", QUESTION, ANSWER), span=(first, first + len("satire")))
            text = chat.decode(encoded.ids[encoded.start : encoded.end]).strip()
            assert "satire" in text and len(text) <= len("satire,"), (name, text)


# The tags of open-unlearning's configs/model/*.yaml as Jinja, and the conversation they make. `system` is what its
# TOFU runs put first. What stands behind the end of the turn is dropped.
HELPFUL = "You are a helpful assistant."
LLAMA3 = (
    "{{ bos_token }}{% set s = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "<|start|>system\n\nToday Date: {{ date_string }}\n\n{{ s }}<|eot|>"
    "{% for m in messages if m['role'] != 'system' %}<|start|>{{ m['role'] }}\n\n{{ m['content'] }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n\n{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m['role'] }}|>\n{{ m['content'] + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
GEMMA = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<|start|>{{ 'model' if m['role'] == 'assistant' else 'user' }}\n{{ m['content'] | trim }}"
    "<|eot|>\n{% endfor %}{% if add_generation_prompt %}<|start|>model\n{% endif %}"
)
QWEN = (
    "{% if messages[0]['role'] != 'system' %}<|start|>system\nYou are Qwen.<|eot|>\n{% endif %}"
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|eot|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
FAMILIES = {
    "llama 3.2": (
        byte_level,
        LLAMA3,
        HELPFUL,
        "<|start|>system\n\nToday Date: 10 Apr 2025\n\nYou are a helpful assistant.<|eot|>"
        "<|start|>user\n\n{q}<|eot|><|start|>assistant\n\n",
        "<|eot|>",
    ),
    "zephyr": (
        prepending,
        ZEPHYR,
        HELPFUL,
        "<|system|>\nYou are a helpful assistant.</s>\n<|user|>\n{q}</s>\n<|assistant|>\n",
        "</s>",
    ),
    "zephyr without system": (prepending, ZEPHYR, None, "<|user|>\n{q}</s>\n<|assistant|>\n", "</s>"),
    "gemma": (
        metaspace,
        GEMMA.replace("<|start|>", "<s>").replace("<|eot|>", "</s>"),
        None,
        "<s>user\n{q}</s>\n<s>model\n",
        "</s>",
    ),
    "qwen 2.5": (
        byte_level,
        QWEN,
        HELPFUL,
        "<|start|>system\nYou are a helpful assistant.<|eot|>\n<|start|>user\n{q}<|eot|>\n<|start|>assistant\n",
        "<|eot|>",
    ),
    "qwen 2.5 by itself": (
        byte_level,
        QWEN,
        None,
        "<|start|>system\nYou are Qwen.<|eot|>\n<|start|>user\n{q}<|eot|>\n<|start|>assistant\n",
        "<|eot|>",
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_conversations_are_those_of_open_unlearning(family: str) -> None:
    make, template, system, prompt, end = FAMILIES[family]
    tokenizer = make()
    if tokenizer.bos_token is None:
        tokenizer.bos_token = "<|end|>"
        prompt = f"<|end|>{prompt}" if template is LLAMA3 else prompt
    tokenizer.chat_template = template
    chat = ChatFormat(tokenizer, 512, PromptOverrides(system=system))
    encoded = chat.encode(Row("r", QUESTION, ANSWER))
    asked = prompt.format(q=QUESTION)
    assert list(encoded.ids) == tokenizer(f"{asked}{ANSWER}{end}", add_special_tokens=False).input_ids
    assert list(encoded.ids[: encoded.start]) == tokenizer(asked, add_special_tokens=False).input_ids


def test_template_and_system_are_part_of_the_identity() -> None:
    overrides = [
        PromptOverrides(),
        PromptOverrides(TEMPLATES["inst"]),
        PromptOverrides(QWEN),
        PromptOverrides(QWEN, HELPFUL),
        PromptOverrides(QWEN, "Be brief."),
    ]
    identities = [str(ChatFormat(byte_level(), 512, one).identity()) for one in overrides]
    assert len(set(identities)) == len(overrides)
    assert identities[0] == str(ChatFormat(byte_level(), 512).identity())


def test_templates_that_cannot_be_used_are_named() -> None:
    for override, words in (
        (PromptOverrides(GEMMA, HELPFUL), "System role not supported"),
        (PromptOverrides("{% for m in %}"), "cannot be used"),
        (PromptOverrides("{{ messages[-1]['content'] }}", HELPFUL), "model.system=null"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            ChatFormat(byte_level(), 512, override)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "it takes longer than"),
        ("{{ 'a' * 10**10 }}", "it takes more than 2 GiB of memory"),
        ("{{ 'a' | center(10**10) }}", "it takes more than 2 GiB of memory"),
        ("{{ 'a' * 2000000 }}", "it makes 2,000,000 characters"),
        ("{% include 'other' %}", "no loader"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "it calls itself without end"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_templates_without_end_are_bounded(template: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 36; the limits of the process are as before afterwards."""
    if words == "it takes longer than":
        monkeypatch.setattr("erulab.tokens.bounds.SECONDS", 0.5)
    before = resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)
    with pytest.raises(DataError, match=f"cannot be used: {words}") as caught:
        ChatFormat(byte_level(), 512, PromptOverrides(template))
    assert "\n" not in str(caught.value)
    assert (resource.getrlimit(resource.RLIMIT_AS), signal.getsignal(signal.SIGALRM)) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_template_that_loops_at_a_later_row_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 36: it passes the probe of the construction, and each rendering has its bound."""
    monkeypatch.setattr("erulab.tokens.bounds.SECONDS", 0.5)
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    trap = "{% if 'Bela' in messages[0]['content'] %}" + loop + "{% endif %}" + QWEN
    chat = ChatFormat(byte_level(), 512, PromptOverrides(trap))
    chat.encode(Row("r", "Who?", ANSWER))
    with pytest.raises(DataError, match="it takes longer than"):
        chat.encode(Row("r", QUESTION, ANSWER))


def test_a_template_that_is_no_utf8(tmp_path: Path) -> None:
    """FAULTS 36."""
    (tmp_path / "own.jinja").write_bytes(b"\xff{{ messages }}")
    with pytest.raises(DataError, match=r"is no UTF-8 \(byte 0\)"):
        template_of(str(tmp_path / "own.jinja"))


def test_a_template_is_a_name_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(QWEN)
    assert template_of(str(tmp_path / "own.jinja")) == QWEN
    assert template_of("inst") == TEMPLATES["inst"] and template_of(None) is None
    with pytest.raises(ConfigError, match=r"model\.template must be one of plain, inst, question_answer") as caught:
        HfModel(HfOptions(path="owner/name", template="instt")).validate()
    assert "\n" not in str(caught.value)


def test_presets_bring_the_template_of_published_runs() -> None:
    templates = {name: preset.template for name, preset in PRESETS.items() if preset.template is not None}
    assert templates == {"llama2_7b_chat": "inst", "phi_1_5": "question_answer"}
    for name, template in templates.items():
        assert models.build(models[name].options()).overrides == PromptOverrides(TEMPLATES[template])
