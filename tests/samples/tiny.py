"""Small random models of four families, encoded rows without a tokenizer, and NLL computed token by token."""

from __future__ import annotations

import copy
import math

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from erulab.tokens.batch import Encoded

VOCABULARY, WIDTH = 37, 16
KINDS = ("llama", "qwen2", "gpt2", "phi")


def random_model(kind: str = "llama", layers: int = 3, dtype: torch.dtype = torch.float64) -> PreTrainedModel:
    """Returns a random model, untied and without dropout; its weights are large enough that every layer counts."""
    shape = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 24,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "initializer_range": 0.3,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": None,
    }
    torch.manual_seed(5)
    model: PreTrainedModel
    if kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=1))
    elif kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape, num_key_value_heads=1))
    elif kind == "phi":
        model = PhiForCausalLM(PhiConfig(**shape, resid_pdrop=0.0, embd_pdrop=0.0, attention_dropout=0.0))
    else:
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCABULARY,
                n_embd=WIDTH,
                n_layer=layers,
                n_head=2,
                n_positions=64,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                initializer_range=0.3,
                tie_word_embeddings=False,
                bos_token_id=0,
                eos_token_id=1,
            )
        )
    return model.to(dtype).eval()


def moved(model: PreTrainedModel, size: float = 0.05, seed: int = 1) -> PreTrainedModel:
    """Returns a copy with normal noise of this standard deviation on every weight, in place of a trained model."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in other.parameters():
            p.add_(size * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p))
    return other


def encoded(name: str, prompt: int, response: int) -> Encoded:
    """Returns a row of random ids that starts with id 0 and ends with id 1.

    Args:
        name: the row's id, which also seeds its tokens.
        prompt: number of prompt tokens.
        response: number of supervised tokens.
    """
    generator = torch.Generator().manual_seed(sum(map(ord, name)) * 31 + prompt)
    ids = [0, *torch.randint(2, VOCABULARY, (prompt + response - 2,), generator=generator).tolist(), 1]
    return Encoded(name, tuple(ids), prompt, prompt + response)


def answered(row: Encoded, name: str, response: int) -> Encoded:
    """Returns the row with another response of this many tokens; the prompt and the row's id stay."""
    other = encoded(name, row.start, response)
    return Encoded(row.row_id, row.ids[: row.start] + other.ids[row.start :], row.start, row.start + response)


FORGET = [encoded("f0", 5, 4), encoded("f1", 7, 2), encoded("f2", 4, 7), encoded("f3", 6, 3)]
PAIRED = [answered(row, f"idk{i}", length) for i, (row, length) in enumerate(zip(FORGET, (3, 5, 2, 4), strict=True))]
RETAIN = [encoded("r0", 6, 5), encoded("r1", 3, 2), encoded("r2", 8, 6), encoded("r3", 5, 3)]
RETAIN_PAIRED = [answered(row, f"no{i}", n) for i, (row, n) in enumerate(zip(RETAIN, (4, 2, 3, 6), strict=True))]


def naive_token_nll(model: PreTrainedModel, row: Encoded) -> list[torch.Tensor]:
    """Returns the NLL of each supervised token in nats, from the full logits of the row alone, one token at a time."""
    logits = model(input_ids=torch.tensor([row.ids])).logits[0]
    nll = []
    for position in range(max(row.start, 1), row.end):
        exponentials = logits[position - 1].exp()
        nll.append(-(exponentials[row.ids[position]] / exponentials.sum()).log())
    return nll


def naive_nll(model: PreTrainedModel, row: Encoded) -> torch.Tensor:
    """Returns the NLL of the row's response in nats: a sum over tokens."""
    return torch.stack(naive_token_nll(model, row)).sum()


def gradients(loss: torch.Tensor, model: PreTrainedModel) -> torch.Tensor:
    """Returns the gradients of all parameters in one vector; 0 for a parameter that the loss does not depend on."""
    parameters = list(model.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(parameters, found, strict=True)]
    )


LOG2 = math.log(2.0)
