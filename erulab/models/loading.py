"""Reads and writes checkpoints in Hugging Face's format: safetensors only; code in a checkpoint is never run."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from erulab import logprobs
from erulab.errors import DataError, EnvironmentFault, IntegrityFault
from erulab.faults import cause_of, lacks_memory
from erulab.models.attention import implementation
from erulab.models.folders import folder_identity, local_folder, tokenizer_folder
from erulab.models.key_value import allows_padding, cached_difference
from erulab.models.library import config_of, faults_of
from erulab.models.loaded import LoadedModel
from erulab.models.options import Attention
from erulab.models.shards import SHARD_BYTES, write_shards
from erulab.models.skipping import TUPLES
from erulab.rundir import give_usual_permissions
from erulab.tokens.batch import Encoded, collate
from erulab.tokens.chat import ChatFormat
from erulab.tokens.templates import NO_OVERRIDES, PromptOverrides

__all__ = ["chat_of", "check_layout", "context_of", "folder_identity", "load_folder", "read_folder", "save_folder"]

log = logging.getLogger(__name__)

# The logits of larger models are not checked by a forward, which would take too long; only their config is.
LAYOUT_CHECK_PARAMETERS = 2_000_000_000
# Tokens of the text that a model of an untested type reads with and without its cache.
GENERATED = 40
# Model types that the forward of a small model refuses; large ones are refused by name.
UNREADABLE = frozenset({"falcon_mamba", "mamba", "mamba2", "nanochat", "recurrent_gemma", "zamba2"})
OTHER_FAMILY = "take a model type that erulab/models/README.md names"


def load_folder(source: str, attention: Attention, overrides: PromptOverrides = NO_OVERRIDES) -> LoadedModel:
    """Loads a folder or hub id in float32 on the CPU, in evaluation mode, with tokenizer and chat format.

    Raises: as `read_folder` and `check_layout`.
    """
    loaded = read_folder(source, attention, overrides)
    check_layout(loaded, source)
    return loaded


def read_folder(
    source: str,
    attention: Attention,
    overrides: PromptOverrides = NO_OVERRIDES,
    dtype: torch.dtype = torch.float32,
    *,
    quantization: BitsAndBytesConfig | None = None,
    device: torch.device | None = None,
) -> LoadedModel:
    """Loads a folder or hub id as `load_folder`, without checking its layout, which takes a forward.

    Args:
        source: a folder or hub id.
        attention: transformers' implementation of attention.
        overrides: chat template, system turn and tokenizer in place of the model's own.
        dtype: of the weights.
        quantization: how linear layers are rounded as they are read; None: they are not.
        device: where each tensor is put as it is read; None: the CPU.

    Raises:
        EnvironmentFault: the folder or the attention's package is missing, or the hub is unreachable.
        IntegrityFault: weights are pickles, damaged or incomplete, or the folder brings code of its own.
        DataError: erulab cannot work with this model or tokenizer.
    """
    config = config_of(source)
    attention_name = implementation(attention, config.model_type)
    problem = f"{source} cannot be loaded as a causal language model with model.attention={attention.value}: {{cause}}"
    with faults_of(problem):
        try:
            read: Any = AutoModelForCausalLM.from_pretrained(
                local_folder(source),
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                dtype=dtype,
                attn_implementation=attention_name,
                quantization_config=quantization,
                device_map=None if device is None else {"": device},
                output_loading_info=True,
            )
        except SafetensorError as error:
            if lacks_memory(error):
                raise
            raise IntegrityFault(f"the weights in {source} are damaged: {error}; fetch or copy them again") from error
        except ImportError as error:
            raise EnvironmentFault(f"{source} cannot be loaded: {cause_of(error)}; try model.attention=sdpa") from error
        except ValueError as error:
            if attention is Attention.eager or "does not support an attention implementation" not in str(error):
                raise
            raise DataError(
                f"{source}: transformers runs {config.model_type} without model.attention={attention.value}; type "
                "model.attention=eager"
            ) from error
    model, info = read
    absent = sorted(info["missing_keys"]) + sorted(key for key, *_ in info["mismatched_keys"])
    if absent:
        # transformers would draw missing weights at random and go on.
        raise IntegrityFault(f"{source} lacks {len(absent)} of the model's weights, such as {absent[0]}")
    tokenizer = _load_tokenizer(overrides.tokenizer or source)
    return LoadedModel(model.eval(), tokenizer, ChatFormat(tokenizer, context_of(model.config, tokenizer), overrides))


def chat_of(source: str, overrides: PromptOverrides = NO_OVERRIDES) -> ChatFormat:
    """Returns the chat format of a folder or hub id, without loading its weights."""
    tokenizer = _load_tokenizer(overrides.tokenizer or source)
    return ChatFormat(tokenizer, context_of(config_of(source), tokenizer), overrides)


def context_of(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> int:
    """Returns the tokens that a model can read: its position embeddings, otherwise the tokenizer's own limit."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(positions or tokenizer.model_max_length)


def check_layout(loaded: LoadedModel, source: str) -> None:
    """Refuses a model that `Policy` would misread: unknown modules, or logits that `head_of` does not give.

    Raises:
        DataError: the tokenizer has more ids than the model embeddings, the layout is unknown, or the policy's NLL
            differs from that of the model's logits.
    """
    model, kind = loaded.model, type(loaded.model).__name__
    embedding: Any = model.get_input_embeddings()
    embeddings: int = embedding.num_embeddings  # a sharded weight has no shape
    largest = max(loaded.tokenizer.get_vocab().values())
    if largest >= embeddings:
        raise DataError(
            f"{source}: the tokenizer has ids up to {largest}, the model only {embeddings} embeddings; "
            "take the tokenizer the model was trained with, or call resize_token_embeddings and save it"
        )
    try:
        blocks, norm = loaded.policy.blocks, loaded.policy.norm
    except TypeError as error:
        raise DataError(f"{source}: erulab does not know the layout of {kind} ({error}); {OTHER_FAMILY}") from error
    # DeepSpeed keeps the size of a sharded weight in another attribute.
    if sum(getattr(p, "ds_numel", p.numel()) for p in model.parameters()) > LAYOUT_CHECK_PARAMETERS:
        if model.config.model_type in UNREADABLE:
            raise DataError(f"{source}: erulab cannot generate with {kind}, or not read its layout; {OTHER_FAMILY}")
        log.info("%s is large: its logits are not compared with erulab's own reading of it", source)
        return
    ids = tuple(embeddings * i // 5 for i in range(1, 5))
    batch = collate([Encoded("layout", ids, 1, len(ids))], loaded.pad_id).to(loaded.policy.device)
    seen: list[tuple[Any, Any]] = []
    hooks = [
        module.register_forward_hook(lambda _, read, written: seen.append((read, written)))
        for module in (blocks[0], norm)
    ]
    try:
        with torch.no_grad():
            policy_nll = loaded.policy.token_nll(batch)
            calls = tuple(seen)
            logp = logprobs.log_softmax(model(input_ids=batch.input_ids).logits)
    except (TypeError, AttributeError) as error:
        raise DataError(
            f"{source}: erulab does not know the layout of {kind} ({cause_of(error)}); {OTHER_FAMILY}"
        ) from error
    finally:
        for hook in hooks:
            hook.remove()
    # Hooks on the first block and on the norm read and change h_0 and h_L: each must be called once, with the states.
    known = len(calls) == 2
    if known:
        read, written = calls[0]
        known = bool(read) and isinstance(written, tuple) == (model.config.model_type in TUPLES)
    if not known:
        raise DataError(
            f"{source}: erulab does not know the layout of {kind} (how blocks and norm pass states on); {OTHER_FAMILY}"
        )
    true_nll = -logp[0, :-1].gather(-1, batch.input_ids[0, 1:, None]).squeeze(-1)
    # bfloat16 holds three digits, and its matrix products depend on how many rows they have.
    tolerance = 1e-4 if model.dtype == torch.float32 else 5e-2
    if not torch.allclose(policy_nll, true_nll, rtol=tolerance, atol=tolerance):
        raise DataError(
            f"{source}: {kind} changes its logits after the head in a way that erulab does not know: NLL "
            f"{policy_nll.mean():.4f} against {true_nll.mean():.4f}; {OTHER_FAMILY}"
        )
    if not allows_padding(model.config):
        _check_generation(loaded, source, tolerance)


def _check_generation(loaded: LoadedModel, source: str, tolerance: float) -> None:
    """Compares logits from a filled cache with those of the whole text, for model types that no test compares.

    Raises:
        DataError: they differ, or there is no such cache.
    """
    model, kind = loaded.model, loaded.model.config.model_type
    embedding: Any = model.get_input_embeddings()
    ids = torch.arange(GENERATED, device=loaded.policy.device)[None] % embedding.num_embeddings
    try:
        difference = cached_difference(model, ids)
    except (TypeError, AttributeError, ValueError) as error:
        raise DataError(
            f"{source}: erulab cannot generate with {kind} models ({cause_of(error)}); {OTHER_FAMILY}"
        ) from error
    if not difference <= tolerance:
        raise DataError(
            f"{source}: transformers' cache changes the logits of {kind} models by {difference:.1%} of the largest, so "
            f"that responses would not be the model's own; {OTHER_FAMILY}"
        )
    log.info("%s: %s models answer one prompt at a time, because no test compares their padded batches", source, kind)


def save_folder(
    loaded: LoadedModel,
    folder: Path,
    weights: Iterable[tuple[str, torch.Tensor]] | None = None,
    *,
    write: bool = True,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes model, tokenizer and chat template; the folder appears whole or not at all.

    Args:
        folder: replaced if it exists.
        weights: `Engine.weights` after a training, written one at a time in files of `shard_bytes`; None: the
            model's own.
        write: False on the ranks that only help to gather the weights.
    """
    if not write:
        for _ in weights or ():
            pass
        return
    working = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(working, ignore_errors=True)
    try:
        if weights is None:
            loaded.model.save_pretrained(working)
        else:
            working.mkdir(parents=True)
            write_shards(weights, working, "model", shard_bytes)
            # Under ZeRO-3 the model holds no whole weights, which save_pretrained would read.
            config = loaded.model.config
            config.architectures, config.dtype = [type(loaded.model).__name__], loaded.model.dtype
            config.save_pretrained(working)
            loaded.model.generation_config.save_pretrained(working)
        loaded.tokenizer.save_pretrained(working)
        for file in working.iterdir():
            give_usual_permissions(file)
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        shutil.rmtree(folder, ignore_errors=True)
        working.rename(folder)
    finally:
        shutil.rmtree(working, ignore_errors=True)


def _load_tokenizer(source: str) -> PreTrainedTokenizerBase:
    folder = tokenizer_folder(source)
    # AutoTokenizer builds the tokenizers of some model types anew from their class and ignores the pre-tokenizer and
    # merges of tokenizer.json (transformers 5): ids would not be those that the model was trained with.
    reader: Any = PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else AutoTokenizer
    with faults_of(
        f"{source} holds no tokenizer that can be loaded: {{cause}}; to take another model's, type "
        "model.tokenizer=FOLDER_OR_HUB_ID"
    ):
        tokenizer: PreTrainedTokenizerBase = reader.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    if not isinstance(tokenizer.model_max_length, int | float):  # transformers believes whatever the file says
        raise DataError(
            f"{folder / 'tokenizer_config.json'}: model_max_length must be a number, got "
            f"{tokenizer.model_max_length!r:.40}"
        )
    return tokenizer
