"""The embedded model: a tiny Llama with random weights, and a word-level tokenizer of the benchmark's words."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import lazy_loader

from erulab import draws
from erulab.data.rows import Benchmark
from erulab.errors import ConfigError
from erulab.models import folders
from erulab.models.options import ModelOptions
from erulab.options import require, require_positive
from erulab.registry import models
from erulab.tokens.chat import ChatFormat
from erulab.tokens.templates import NO_OVERRIDES

if TYPE_CHECKING:
    import tokenizers
    import torch
    from transformers import PreTrainedTokenizerFast

    from erulab.models.loaded import LoadedModel
else:
    tokenizers = lazy_loader.load("tokenizers")
    torch = lazy_loader.load("torch")

VERSION = 1  # of tokenizer and architecture: a change makes every target anew
CONTEXT = 256
PAD, BOS, EOS, UNK = SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
# A word or punctuation mark and the space before it are one token, so that joined tokens give the text back.
PIECES = r" ?\w+| ?[^\w\s]|\s"
# The newline is a token of its own, so that a response begins without a space whatever the prompt.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['content'] + (eos_token if message['role'] == 'assistant' else '\n') }}{% endfor %}"
)


@dataclass
class TinyOptions(ModelOptions):
    name: str = "tiny"
    layers: int = 4  # number of blocks
    width: int = 128  # of hidden states; a multiple of 2 * heads
    heads: int = 4  # attention heads

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive("layers", self.layers)
        require_positive("heads", self.heads)
        # Rotary embeddings rotate pairs of a head's channels.
        fits = self.width > 0 and self.heads > 0 and self.width % (2 * self.heads) == 0
        require(fits, "width", f"a multiple of {2 * self.heads} (twice heads)", self.width)


@models.register("tiny", TinyOptions, needs="nothing: weights and tokenizer are made in place")
class TinyModel:
    """Embedded: a Llama of about a million parameters, trained from scratch on the benchmark's words."""

    def __init__(self, options: TinyOptions) -> None:
        self.options = options

    folder = None  # weights are drawn at random
    overrides = NO_OVERRIDES

    def validate(self) -> None:
        if self.options.path is not None:
            raise ConfigError(
                f"model=tiny makes its own weights, got model.path={self.options.path}; to start from a folder or "
                f"hub id, type model=hf model.path={self.options.path}"
            )
        folders.validate_given(self.options)

    def identity(self, benchmark: Benchmark) -> dict[str, Any]:
        words = "\x1f".join(vocabulary(benchmark.texts())).encode()
        o = self.options
        return {
            "tiny": VERSION,
            "layers": o.layers,
            "width": o.width,
            "heads": o.heads,
            "vocabulary": hashlib.sha256(words).hexdigest()[:16],
        }

    def architecture(self, benchmark: Benchmark | None) -> Mapping[str, Any]:
        if benchmark is None:
            raise ConfigError(
                "model=tiny has the data's words for its vocabulary, and the data is not here; give its folder: "
                "dataset.path=FOLDER"
            )
        o = self.options
        return {
            "model_type": "llama",
            "vocab_size": len(vocabulary(benchmark.texts())),
            "hidden_size": o.width,
            "intermediate_size": 4 * o.width,
            "num_hidden_layers": o.layers,
            "num_attention_heads": o.heads,
            "tie_word_embeddings": False,
        }

    def chat(self, benchmark: Benchmark) -> ChatFormat:
        return ChatFormat(tokenizer_of(benchmark.texts()), CONTEXT)

    def load(self, benchmark: Benchmark, seed: int) -> LoadedModel:
        """Draws random weights in float32: the same for the same options, vocabulary and seed."""
        # Not at the top: the command path imports this file and must not load transformers.
        from transformers import AutoModelForCausalLM, LlamaConfig

        from erulab.models.attention import implementation
        from erulab.models.loaded import LoadedModel

        tokenizer = tokenizer_of(benchmark.texts())
        o = self.options
        config = LlamaConfig(
            **self.architecture(benchmark),
            max_position_embeddings=CONTEXT,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        # transformers draws initial weights from the global CPU generator, whose state is restored afterwards.
        # (torch.manual_seed would change the GPUs' generators too.)
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(draws.seed_of("tiny", seed))
            model = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, attn_implementation=implementation(o.attention, config.model_type)
            )
        return LoadedModel(model.eval(), tokenizer, ChatFormat(tokenizer, CONTEXT))


def vocabulary(texts: Sequence[str]) -> list[str]:
    """Lists special tokens, then every word with and without a space before it, sorted; no word is two tokens."""
    return list(_vocabulary(tuple(texts)))


@functools.lru_cache(maxsize=4)  # a run asks for that of its data set again and again
def _vocabulary(texts: tuple[str, ...]) -> tuple[str, ...]:
    pieces = _word_splitter()
    found = {"\n"}
    for text in texts:
        for piece, _ in pieces.pre_tokenize_str(text):
            bare = piece.removeprefix(" ")
            found.update((piece, bare, f" {bare}") if bare.strip() else (piece,))
    return (*SPECIALS, *sorted(found))


def tokenizer_of(texts: list[str]) -> PreTrainedTokenizerFast:
    """Makes a word-level tokenizer of these texts with a minimal chat template; decoding gives the text back."""
    from transformers import PreTrainedTokenizerFast

    ids = {word: i for i, word in enumerate(vocabulary(texts))}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token=UNK))
    backend.pre_tokenizer = _word_splitter()
    backend.decoder = tokenizers.decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=PAD, bos_token=BOS, eos_token=EOS, unk_token=UNK, model_max_length=CONTEXT
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def _word_splitter() -> tokenizers.pre_tokenizers.Split:
    return tokenizers.pre_tokenizers.Split(tokenizers.Regex(PIECES), behavior="isolated")
