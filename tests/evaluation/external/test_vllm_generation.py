"""evaluation.generator=vllm: responses are those of erulab's own generation, through a stand-in or vLLM itself.

The stand-in has the part of vLLM's interface that erulab calls, and ends responses by vLLM's rules: token ids come out
with the stop token, and without what the prompt holds; texts of stops end a response as soon as they are in its text.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from erulab.config.compose import compose_config
from erulab.data.rows import Role, Row, Suite
from erulab.errors import ConfigError, EnvironmentFault
from erulab.evaluation.evaluate import evaluate
from erulab.evaluation.external.vllm_generation import generate_with_vllm
from erulab.evaluation.generation import generate
from erulab.evaluation.prompt import Draw, Prompt
from erulab.launching.folder_key import folder_key
from erulab.launching.generator_choice import check_generator
from erulab.launching.machine import GPU
from erulab.models.loaded import LoadedModel
from erulab.models.loading import load_folder
from erulab.models.options import Attention
from erulab.options import EngineName, EngineOptions, EvaluationOptions
from erulab.ranks import Ranks
from tests.models.conftest import ROWS, byte_level, tiny_model

CONTEXT = 48  # tokens


@dataclass
class SamplingParams:
    temperature: float = 1.0
    max_tokens: int | None = 16
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False


@dataclass
class CompletionOutput:
    token_ids: list[int]
    text: str = ""


@dataclass
class RequestOutput:
    outputs: list[CompletionOutput] = field(default_factory=list)


class LLM:
    """Generates by an argmax loop over one prompt at a time, with a tokenizer and weights that it reads itself."""

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        trust_remote_code: bool = False,
        dtype: str = "auto",
        gpu_memory_utilization: float = 0.92,
        max_model_len: int | None = None,
        generation_config: str = "auto",
        seed: int = 0,
    ) -> None:
        assert dtype == "float32" and generation_config == "vllm" and not trust_remote_code
        self._loaded = load_folder(model, Attention.eager)
        self._longest = max_model_len or 0

    def generate(
        self,
        prompts: Sequence[dict[str, list[int]]],
        sampling_params: Sequence[SamplingParams],
        *,
        use_tqdm: bool = True,
    ) -> list[RequestOutput]:
        found = [
            self._continue(prompt["prompt_token_ids"], params)
            for prompt, params in zip(prompts, sampling_params, strict=True)
        ]
        return [RequestOutput([CompletionOutput(ids)]) for ids in found]

    def _continue(self, prompt: list[int], params: SamplingParams) -> list[int]:
        assert params.temperature == 0 and params.max_tokens and len(prompt) < self._longest
        decode = functools.partial(self._loaded.tokenizer.decode, skip_special_tokens=True)
        ends = [*(params.stop_token_ids or []), *([] if params.ignore_eos else [self._loaded.tokenizer.eos_token_id])]
        new: list[int] = []
        while len(new) < min(params.max_tokens, self._longest - len(prompt)):
            with torch.no_grad():
                new.append(int(self._loaded.model(torch.tensor([prompt + new])).logits[0, -1].argmax()))
            if new[-1] in ends or any(stop in decode(new) for stop in params.stop or []):
                break
        return new


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama with a tokenizer of bytes, on disk."""
    folder, tokenizer = tmp_path_factory.mktemp("llama"), byte_level()
    tiny_model("llama", len(tokenizer), max_position_embeddings=CONTEXT).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_folder(str(folder), Attention.eager)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("vllm")
    module.LLM, module.SamplingParams = LLM, SamplingParams
    monkeypatch.setitem(sys.modules, "vllm", module)


def asked(loaded: LoadedModel) -> list[Prompt]:
    """Prompts whose responses end by a stop id, a stop text, their limit, and the model's context; one is begun."""
    rows = [*(loaded.chat.encode_prompt(row) for row in ROWS), loaded.chat.encode_text("Ada was born")]
    free = [Prompt(tuple(ids), 12) for ids in rows]
    texts = generate(loaded, free, 1000, Ranks())
    stopped = replace(free[0], stops=(texts[0][4:6], "never there"))
    long = Prompt(tuple((list(free[1].ids) * CONTEXT)[: CONTEXT - 3]), 12)
    begun = replace(free[2], begun=2, stops=(texts[2][3:5],))
    prompts = [*free, stopped, long, begun, free[0]]
    found = generate(loaded, prompts, 1000, Ranks())
    assert len(found[3]) < len(texts[0]) and texts[0].startswith(found[3])
    assert len(set(found)) >= 5
    return prompts


def responses(prompts: Sequence[Prompt], loaded: LoadedModel, folder: Path) -> list[str]:
    return generate_with_vllm(prompts, str(folder), loaded.chat, None, 0.3)


def test_texts_are_those_of_erulabs_generation(stand_in: None, folder: Path, loaded: LoadedModel) -> None:
    prompts = asked(loaded)
    assert responses(prompts, loaded, folder) == generate(loaded, prompts, 1000, Ranks())


def test_a_stop_id_ends_a_response_and_is_no_part_of_it(stand_in: None, folder: Path, loaded: LoadedModel) -> None:
    prompts = asked(loaded)
    # The id that the model gives third becomes an end of turn.
    third = LLM(str(folder), dtype="float32", generation_config="vllm", max_model_len=CONTEXT)._continue(
        list(prompts[0].ids), SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    )[2]
    chat = load_folder(str(folder), Attention.eager).chat
    chat.stop_ids = (third,)
    ending = replace(loaded, chat=chat)
    wanted = generate(ending, prompts, 1000, Ranks())
    assert wanted != generate(loaded, prompts, 1000, Ranks())
    assert responses(prompts, ending, folder) == wanted


def test_vllm_itself_gives_the_same_texts(folder: Path, loaded: LoadedModel) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    if not torch.cuda.is_available():
        pytest.skip("vLLM needs a GPU")
    prompts = asked(loaded)
    assert responses(prompts, loaded, folder) == generate(loaded, prompts, 1000, Ranks())


def test_figures_are_the_same(stand_in: None, folder: Path, loaded: LoadedModel) -> None:
    row = Row("ada", "Ada?", "born")
    suites = [Suite("forget", Role.FORGET, (row, replace(row, id="bela", prompt="Bela?")))]
    options = EvaluationOptions(max_new_tokens=6)
    respond = functools.partial(generate_with_vllm, source=str(folder), chat=loaded.chat, tokenizer=None, memory=0.3)
    ours = evaluate(loaded, suites, options, Ranks())
    assert all(one.response for one in ours)
    assert evaluate(loaded, suites, options, Ranks(), respond=respond) == ours


def test_samples_are_not_asked_for(stand_in: None, folder: Path, loaded: LoadedModel) -> None:
    with pytest.raises(ValueError, match="greedy"):
        responses([Prompt((5, 6), 4, draw=Draw(1))], loaded, folder)


H100 = [GPU("H100", 9.0, "0")]
VLLM = "evaluation.generator=vllm"


def refused(gpus: list[GPU], engine: EngineName, processes: int = 1, *overrides: str) -> None:
    config = compose_config([VLLM, *overrides])
    check_generator(replace(config, engine=EngineOptions(engine, processes)), gpus)


def test_it_is_refused_in_a_line_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="engine=zero2 with 4 processes; type engine=local, or type evaluation"):
        refused(H100, EngineName.zero2, 4)
    with pytest.raises(ConfigError, match="engine=zero3 with 1 process;"):
        refused(H100, EngineName.zero3)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match="not installed here"):
        refused(H100, EngineName.local)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(EnvironmentFault, match="needs an NVIDIA GPU"):
        refused([], EngineName.local)
    refused(H100, EngineName.local)
    # It has nothing to do: no responses, or no scores.
    refused([], EngineName.zero2, 4, "evaluation.generate=false")
    refused([], EngineName.zero2, 4, "stages=[target,unlearn]")


def test_only_vllm_is_part_of_keys() -> None:
    plain, named, vllm = (compose_config(more) for more in ([], ["evaluation.generator=torch"], [VLLM]))
    assert folder_key(plain) == folder_key(named) != folder_key(vllm)
