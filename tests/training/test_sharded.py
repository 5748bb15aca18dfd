"""zero3 loads a folder without a whole copy on any rank, and computes and writes the same as one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from erulab.models.loading import load_folder
from erulab.models.options import Attention
from erulab.ranks import Ranks
from erulab.tokens.batch import collate
from erulab.tokens.encoder import Encoder
from erulab.training.reference import reference_table
from tests.training.conftest import small_world
from tests.training.sharded_ranks import BATCH_TOKENS, ROWS
from tests.training.zero_launch import SHARDED


def written_figures(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads((folder / f"{name}.rank{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", SHARDED)
def test_no_rank_ever_holds_a_full_copy(name: str, ranks_folder: Path) -> None:
    """While two ranks load a folder, their memory grows by half of the weights and a few tensors.

    Rank 0 also maps the files, whose pages the system can drop; the other rank reads no more than its part.
    """
    size = sum(value.nbytes for value in load_file(ranks_folder / name / "model.safetensors").values())
    first, second = written_figures(ranks_folder, name)
    for rank in (first, second):
        assert 0.5 * size < rank["sharded"]["own"] < 0.75 * size
        assert rank["whole_now"] < 0.01 * size  # the norms' weights
        # The measurement would notice a whole copy, or reading the files whole.
        assert rank["copied"]["own"] > 0.95 * size and rank["read"]["all"] > 0.8 * size
    assert second["sharded"]["all"] < 0.75 * size


@pytest.mark.parametrize("name", SHARDED)
def test_reference_tables_with_unequal_numbers_of_batches(name: str, ranks_folder: Path, tmp_path: Path) -> None:
    loaded = load_folder(str(ranks_folder / name), Attention.sdpa)
    rows = Encoder(loaded.chat, None, Path()).encode(small_world().forget[:ROWS])
    wanted = reference_table(
        loaded.policy, name, rows, [], folder=tmp_path, pad_id=loaded.pad_id, batch_tokens=BATCH_TOKENS, ranks=Ranks()
    )
    for rank in written_figures(ranks_folder, name):
        assert rank["reference"] == pytest.approx(wanted.forget.tolist(), rel=1e-5)


@pytest.mark.parametrize("name", SHARDED)
def test_a_step_against_a_frozen_copy(name: str, ranks_folder: Path) -> None:
    """NLL and gradient norm are those of one process; KL to the same folder, loaded frozen, is 0."""
    loaded = load_folder(str(ranks_folder / name), Attention.sdpa)
    rows = Encoder(loaded.chat, None, Path()).encode(small_world().forget[:ROWS])
    nll = loaded.policy.token_nll(collate(rows, loaded.pad_id))
    (nll.sum() / sum(row.tokens for row in rows)).backward()
    norm = torch.nn.utils.get_total_norm([p.grad for p in loaded.model.parameters() if p.grad is not None])
    ranks = written_figures(ranks_folder, name)
    assert sum(rank["nll"] for rank in ranks) == pytest.approx(float(nll.sum()), rel=1e-5)
    for rank in ranks:
        assert rank["norm"] == pytest.approx(float(norm), rel=1e-4)
        assert rank["kl"] < 1e-5


@pytest.mark.parametrize("name", SHARDED)
def test_a_model_written_in_several_files_loads_equal(name: str, ranks_folder: Path) -> None:
    """After a step with lr 0, parameters are gathered one at a time; from_pretrained finds every tensor and buffer."""
    written = ranks_folder / f"{name}-2"
    files = list(written.glob("model-*-of-*.safetensors"))
    assert len(files) > 3 and max(file.stat().st_size for file in files) < 4_100_000
    first, second = (load_folder(str(f), Attention.sdpa).model for f in (ranks_folder / name, written))
    parameters, buffers = dict(second.named_parameters()), dict(second.named_buffers())
    assert all(torch.equal(value, parameters[key]) for key, value in first.named_parameters())
    assert all(torch.equal(value, buffers[key]) for key, value in first.named_buffers())
    assert (second.lm_head.weight is second.model.embed_tokens.weight) == (name == "tied")
