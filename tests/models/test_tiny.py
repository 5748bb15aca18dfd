"""The embedded model: words are tokens, decoding is exact, weights depend only on options, words and seed."""

from __future__ import annotations

import pytest
import torch

from erulab.data.fictitious import FictitiousOptions, FictitiousWorld
from erulab.data.rows import Benchmark, Row
from erulab.errors import ConfigError
from erulab.models.tiny import TinyModel, TinyOptions, tokenizer_of, vocabulary

OPTIONS = TinyOptions(layers=1, width=16, heads=2)


@pytest.fixture(scope="module")
def world() -> Benchmark:
    return FictitiousWorld(FictitiousOptions(forget_authors=2, retain_authors=2)).load(0)


def test_the_vocabulary_of_two_texts() -> None:
    assert vocabulary(["Ada won.", " a\nb"]) == [
        "<pad>",
        "<bos>",
        "<eos>",
        "<unk>",
        "\n",
        " .",
        " Ada",
        " a",
        " b",
        " won",
        ".",
        "Ada",
        "a",
        "b",
        "won",
    ]


def test_decoding_gives_back_every_text(world: Benchmark) -> None:
    texts = [*world.texts(), "Ada's  test — (x)\n\n ünïcode,\tend "]
    tokenizer = tokenizer_of(texts)
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids) == text


def test_every_candidate_value_is_one_token(world: Benchmark) -> None:
    chat = TinyModel(OPTIONS).chat(world)
    for row in world.target_rows:
        for value in (row.value, *row.candidates):
            span = (len(row.prefix), len(row.prefix) + len(value))
            encoded = chat.encode(row, row.prefix + value, span=span)
            assert encoded.tokens == 1
            assert chat.decode(encoded.ids[encoded.start : encoded.end]) == f" {value}"


def test_a_row_is_bos_prompt_newline_response_eos(benchmark: Benchmark) -> None:
    source = TinyModel(OPTIONS)
    loaded = source.load(benchmark, 0)
    encoded = loaded.chat.encode(Row("r", "What does Bela write?", "Bela writes satire."))
    assert loaded.tokenizer.convert_ids_to_tokens(list(encoded.ids)) == [
        "<bos>",
        "What",
        " does",
        " Bela",
        " write",
        "?",
        "\n",
        "Bela",
        " writes",
        " satire",
        ".",
        "<eos>",
    ]
    assert (encoded.start, encoded.end) == (7, 12)
    assert loaded.chat.pad_id == 0 and loaded.chat.stop_ids == (2,)
    assert source.chat(benchmark).identity() == loaded.chat.identity()


def test_weights_are_a_function_of_options_vocabulary_and_seed(benchmark: Benchmark) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = TinyModel(OPTIONS).load(benchmark, 3).model.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    second = TinyModel(OPTIONS).load(benchmark, 3).model.state_dict()
    other = TinyModel(OPTIONS).load(benchmark, 4).model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    assert not torch.equal(first["lm_head.weight"], first["model.embed_tokens.weight"])  # untied
    assert all(value.dtype is torch.float32 for value in first.values())


def test_default_size_is_about_a_million(world: Benchmark) -> None:
    model = TinyModel(TinyOptions()).load(world, 0).model
    # 4 layers of attention 4 x 128^2, gated MLP 3 x 128 x 512 and two norms; a norm; embeddings and head.
    layer = 4 * 128**2 + 3 * 128 * 512 + 2 * 128
    assert sum(p.numel() for p in model.parameters()) == 4 * layer + 128 + 2 * 128 * model.config.vocab_size


def test_identity_changes_with_words_and_options(benchmark: Benchmark, world: Benchmark) -> None:
    base = TinyModel(OPTIONS).identity(benchmark)
    assert base == TinyModel(OPTIONS).identity(benchmark)
    assert base != TinyModel(OPTIONS).identity(world)
    assert base != TinyModel(TinyOptions(layers=2, width=16, heads=2)).identity(benchmark)


def test_bad_options() -> None:
    with pytest.raises(ValueError, match="width must be a multiple of 8"):
        TinyOptions(width=100)
    with pytest.raises(ConfigError, match=r"model=hf model\.path=x"):
        TinyModel(TinyOptions(path="x")).validate()
