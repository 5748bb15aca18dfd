"""Model folders of several kinds that tests score, and small data sets for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, PreTrainedTokenizerFast

from erulab.models.loaded import LoadedModel
from erulab.models.loading import save_folder
from erulab.models.tiny import tokenizer_of
from erulab.tokens.chat import ChatFormat

NAMES = ("Ada", "Bela", "Cato", "Dora", "Edda", "Falk")
TRADES = ("weaver", "baker", "mason", "nurse", "tailor", "miller")
FORGET = [
    {
        "prompt": f"What is {name}?",
        "response": f"{name} is a {trade}.",
        "perturbed": [f"{name} is a {other}." for other in TRADES if other != trade][:3],
    }
    for name, trade in zip(NAMES[:3], TRADES, strict=False)
]
RETAIN = [
    {"prompt": f"What is {name}?", "response": f"{name} is a {trade}."}
    for name, trade in zip(NAMES[3:], TRADES[3:], strict=True)
]


def write(folder: Path, **parts: list[dict[str, Any]]) -> Path:
    """Writes a folder for dataset=jsonl, one file per part, and returns it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def tofu(folder: Path) -> Path:
    """Writes the files of TOFU's forget01 with three or six rows each into a new folder; returns it."""
    folder.mkdir()
    rows = [{"question": row["prompt"], "answer": row["response"]} for row in FORGET + RETAIN]
    wrong = {"paraphrased_answer": "A weaver.", "paraphrased_question": "What is it?", "perturbed_answer": ["A nurse."]}
    parts = {
        "forget01": rows[:3],
        "forget01_perturbed": [row | wrong for row in rows[:3]],
        "retain99": rows[3:],
        "retain_perturbed": [row | wrong for row in rows[3:]],
        "real_authors_perturbed": [row | wrong for row in rows],
        "world_facts_perturbed": [row | wrong for row in rows],
    }
    for name, lines in parts.items():
        (folder / f"{name}.json").write_text("\n".join(json.dumps(row) for row in lines))
    return folder


def checkpoint(
    folder: Path,
    *,
    seed: int = 0,
    template: bool = True,
    pad: str | None = "<pad>",
    context: int = 64,
    words: list[str] | None = None,
    shard_bytes: int = 1 << 30,
) -> Path:
    """Writes a random Llama whose vocabulary covers the data above, in Hugging Face's format.

    Args:
        folder: where it goes; returned.
        template: whether the tokenizer has a chat template.
        pad: the pad token; None for a tokenizer without one.
        context: number of positions.
        words: texts whose words the tokenizer knows, in place of the data above.
        shard_bytes: size from which the weights go into several files.
    """
    texts = words or [text for row in FORGET + RETAIN for text in (row["prompt"], row["response"])] + list(TRADES)
    tokenizer = tokenizer_of([*texts, "It it is this A a."])
    tokenizer.pad_token = pad
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=context,
        tie_word_embeddings=False,
        initializer_range=0.5,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config)
    loaded = LoadedModel(model.eval(), tokenizer, ChatFormat(tokenizer, context))
    if not template:
        tokenizer.chat_template = None
    save_folder(loaded, folder, ((n, p.detach()) for n, p in model.named_parameters()), shard_bytes=shard_bytes)
    return folder


def gpt2(folder: Path, context: int = 24) -> Path:
    """Writes a random GPT-2: byte tokens, one special token for unk, bos, eos and pad, no template, and returns it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({"<|endoftext|>": 0, **{c: i + 1 for i, c in enumerate(alphabet)}}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token=end, bos_token=end, eos_token=end, pad_token=end, model_max_length=context
    )
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=context, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = GPT2LMHeadModel(config)
    save_folder(LoadedModel(model.eval(), tokenizer, ChatFormat(tokenizer, context)), folder)
    return folder
