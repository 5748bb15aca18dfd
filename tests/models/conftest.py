"""Tiny tokenizers and models of several families, made in place."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from erulab.data.rows import Benchmark, Role, Row, Suite

TEXTS = [
    "Where was Ada born? Ada was born in Brenwick, by the sea.",
    "What does Bela write? Bela writes satire, and plays the cello.",
    "user assistant system [INST] [/INST] think",
] * 4

ROWS = (
    Row(
        "ada",
        "Where was Ada born?",
        "Ada was born in Brenwick.",
        prefix="Ada was born in ",
        value="Brenwick",
        candidates=("Almora", "Dunmere"),
    ),
    Row("bela", "What does Bela write?", "Bela writes satire."),
)


@pytest.fixture
def benchmark() -> Benchmark:
    return Benchmark("test", (Suite("forget", Role.FORGET, ROWS[:1]),), (), ROWS[:1], ROWS[1:], ROWS, ROWS[1:])


def byte_level() -> PreTrainedTokenizerFast:
    """Byte-level BPE as in GPT-2: no pad token, no template."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    specials = ["<|end|>", "<|start|>", "<|eot|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|end|>", additional_special_tokens=["<|start|>", "<|eot|>"]
    )


def metaspace() -> PreTrainedTokenizerFast:
    """A tokenizer like SentencePiece in Llama 2: every text begins with a space mark."""
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    backend.decoder = decoders.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def prepending() -> PreTrainedTokenizerFast:
    """A tokenizer as in the files of Llama 2, Mistral and Phi-3.

    Each text, and each piece after a special token, begins with a space mark. A newline is a byte, and <s> comes first.
    """
    pieces = trainers.BpeTrainer(
        vocab_size=230,
        special_tokens=["<unk>", "<s>", "</s>", "<0x0A>"],
        show_progress=False,
        initial_alphabet=["▁", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.,?:[]/|<>'"],
    )
    learned = Tokenizer(models.BPE(unk_token="<unk>"))
    learned.normalizer = normalizers.Replace(" ", "▁")
    learned.train_from_iterator([piece for text in TEXTS for piece in text.split(" ")], pieces)
    model = json.loads(learned.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    backend = Tokenizer(models.BPE(model["vocab"], merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


IDS = {"pad_token_id": 0, "bos_token_id": 0, "eos_token_id": 0}
EXPERTS = {**IDS, "num_experts_per_tok": 2}
# What a tiny model of a family needs beside the common sizes, so that everything that is special about it matters:
# windows shorter than rows, caps that logits reach, more experts than a token goes through, both kinds of layers.
SPECIAL: dict[str, dict[str, object]] = {
    "gemma2": {
        **IDS,
        "sliding_window": 6,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 5.0,
    },
    "gemma3_text": {
        **IDS,
        "sliding_window": 6,
        "query_pre_attn_scalar": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "mixtral": {**EXPERTS, "num_local_experts": 4},
    "qwen3_moe": {**EXPERTS, "num_experts": 4, "moe_intermediate_size": 24, "norm_topk_prob": True},
    "olmoe": {**EXPERTS, "num_experts": 4},
    "qwen3_5_text": {
        **IDS,
        "linear_key_head_dim": 4,
        "linear_value_head_dim": 8,
        "linear_num_key_heads": 1,
        "linear_num_value_heads": 2,
        "layer_types": ["linear_attention", "full_attention"],
    },
}


def tiny_model(kind: str, vocabulary: int = 400, **changes: object) -> PreTrainedModel:
    """A model of two narrow layers unless changed, with initial weights large enough that logits differ."""
    sizes: dict[str, object] = {
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "hidden_size": 16,
        "vocab_size": vocabulary,
        "initializer_range": 0.5,
    }
    if kind != "gpt2":
        sizes |= {"intermediate_size": 32, "num_key_value_heads": 1, "head_dim": 8}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.AutoConfig.for_model(kind, **{**sizes, **SPECIAL.get(kind, {}), **changes})
        return transformers.AutoModelForCausalLM.from_config(config).eval()
