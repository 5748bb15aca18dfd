"""evaluation.generator=vllm: greedy responses from vLLM, which batches prompts continuously and pages its cache.

vLLM is given erulab's token ids and returns token ids, so that chat format, end of a response and decoding are those of
erulab's own generation. Source: github.com/vllm-project/vllm; its Python interface is `vllm.LLM`.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from erulab.evaluation import texts
from erulab.evaluation.prompt import Prompt
from erulab.models.folders import local_folder

if TYPE_CHECKING:
    from erulab.tokens.chat import ChatFormat

# Share of the free GPU memory that vLLM takes for weights and cache; the rest is for what it allocates later.
MEMORY = 0.9


def generate_with_vllm(
    prompts: Sequence[Prompt], source: str, chat: ChatFormat, tokenizer: str | None, memory: float
) -> list[str]:
    """Returns one greedy response per prompt, in order; equal prompts are answered once.

    Weights and arithmetic are float32, as in all scoring of erulab. Other kernels round otherwise, so where two tokens
    are almost equally probable the responses can differ from those of torch. The FLOPs are in no ledger.

    Args:
        prompts: none of them samples.
        source: folder or hub id of the model.
        chat: the model's chat format.
        tokenizer: folder or hub id of the tokenizer; None: the model's own. vLLM looks for the texts of stops with it.
        memory: share of the GPU's whole memory that vLLM may take.
    Raises:
        ValueError: a prompt samples.
    """
    import vllm  # optional, and it takes seconds to load

    if any(prompt.draw is not None for prompt in prompts):
        raise ValueError("vLLM generates greedy responses only")
    unique = list(dict.fromkeys(prompts))
    limits = [_new_tokens(prompt, chat) for prompt in unique]
    engine = vllm.LLM(
        model=str(local_folder(source)),
        tokenizer=tokenizer,
        trust_remote_code=False,
        dtype="float32",
        gpu_memory_utilization=memory,
        # No longer than needed: the cache must hold one sequence of this length.
        max_model_len=max(len(prompt.ids) + limit for prompt, limit in zip(unique, limits, strict=True)),
        generation_config="vllm",  # no defaults of the model's own, such as a repetition penalty
        seed=0,
    )
    outputs = engine.generate(
        [{"prompt_token_ids": list(prompt.ids)} for prompt in unique],
        [
            vllm.SamplingParams(
                temperature=0.0,
                max_tokens=limit,
                stop=list(prompt.stops),
                # Only the chat format's own ids end a response, whatever vLLM takes from the model's files.
                stop_token_ids=list(chat.stop_ids),
                ignore_eos=True,
            )
            for prompt, limit in zip(unique, limits, strict=True)
        ],
        use_tqdm=False,
    )
    found = {
        prompt: _text(prompt, output.outputs[0].token_ids, chat) for prompt, output in zip(unique, outputs, strict=True)
    }
    del engine  # frees the GPU for the next model
    gc.collect()
    return [found[prompt] for prompt in prompts]


def free_memory_share(device: torch.device) -> float:
    """Returns the share of the GPU's whole memory that vLLM may take beside what is already there."""
    free, total = torch.cuda.mem_get_info(device)
    return MEMORY * free / total


def _new_tokens(prompt: Prompt, chat: ChatFormat) -> int:
    """Returns the most tokens of a response: its own limit, or what the model's context leaves."""
    return min(prompt.max_new_tokens, max(chat.limit(None) - len(prompt.ids), 1))


def _text(prompt: Prompt, new_ids: Sequence[int], chat: ChatFormat) -> str:
    """Returns the text of a response, with the tokens of it that the prompt holds, cut at the first stop."""
    ids = [*prompt.ids[len(prompt.ids) - prompt.begun :], *new_ids]
    return texts.cut_at(chat.decode(ids[:-1] if ids and ids[-1] in chat.stop_ids else ids), prompt.stops)
