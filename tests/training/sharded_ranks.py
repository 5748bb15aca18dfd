"""Run by zero_ranks.py: loads a folder sharded, scores it, trains one step against a frozen copy, and writes it."""

from __future__ import annotations

import gc
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from erulab import logprobs
from erulab.methods.retain import kl_to_reference
from erulab.methods.seen import TokenValue
from erulab.models.forwards import view_reference
from erulab.models.loaded import LoadedModel
from erulab.models.loading import read_folder, save_folder
from erulab.models.options import Attention
from erulab.models.request import ForwardRequest, PartRequest
from erulab.options import EngineName, EngineOptions, Offload, Precision
from erulab.ranks import Ranks
from erulab.tokens.batch import collate
from erulab.tokens.encoder import Encoder
from erulab.training.engines import build_engine
from erulab.training.reference import reference_table
from erulab.training.sharded import ShardedPolicy, load_sharded, sharded_forwards
from tests.training.conftest import small_world

CPU = torch.device("cpu")
ROWS, BATCH_TOKENS = 7, 40  # too few tokens a batch for ranks to have equally many


def peak_growth(make: Callable[[], Any]) -> tuple[Any, dict[str, int]]:
    """Runs `make`; returns its result, and by how many bytes the process's memory grew meanwhile at its peak.

    "own" is memory without mapped files, "all" with them. With MALLOC_MMAP_THRESHOLD_ below a tensor's size, freed
    tensors leave the process at once.
    """
    gc.collect()  # memory that is freed meanwhile would hide growth
    before, peak, done = _resident(), _resident(), threading.Event()

    def look() -> None:
        peak.update({kind: max(peak[kind], value) for kind, value in _resident().items()})

    def watch() -> None:
        while not done.is_set():
            look()
            time.sleep(0.001)

    watcher = threading.Thread(target=watch)
    watcher.start()
    made = make()
    done.set()
    watcher.join()
    look()
    return made, {kind: peak[kind] - before[kind] for kind in before}


def _resident() -> dict[str, int]:
    """Bytes of the process's own memory, and with the pages of mapped files that it has read."""
    own, files = re.findall(r"Rss(?:Anon|File):\s+(\d+) kB", Path("/proc/self/status").read_text())
    return {"own": int(own) * 1024, "all": (int(own) + int(files)) * 1024}


def _read_whole(source: str) -> LoadedModel:
    loaded = read_folder(source, Attention.sdpa)
    sum(float(p.sum()) for p in loaded.model.parameters())  # mapped pages are read when they are accessed
    return loaded


def sharded(folder: Path, name: str, ranks: Ranks) -> None:
    """Writes what test_sharded.py checks (bytes, reference NLL, loss, KL), and the model in several files."""
    options = EngineOptions(EngineName.zero3, offload=Offload.cpu if name == "tied" else Offload.none)
    source = str(folder / name)
    loaded = load_sharded(source, Attention.sdpa, options, CPU, Precision.fp32)
    whole_now = sum(p.nbytes for p in loaded.model.parameters())
    rows = Encoder(loaded.chat, None, Path()).encode(small_world().forget[:ROWS])
    with sharded_forwards(loaded.model, options, CPU, Precision.fp32):
        table = reference_table(
            loaded.policy, name, rows, [], folder=folder, pad_id=loaded.pad_id, batch_tokens=BATCH_TOKENS, ranks=ranks
        )
    # The second time: the first one also fills caches and pools.
    twin, peak = peak_growth(lambda: load_sharded(source, Attention.sdpa, options, CPU, Precision.fp32))
    whole, read = peak_growth(lambda: _read_whole(source))
    _, copied = peak_growth(whole.copy)
    frozen = ShardedPolicy(twin.model.requires_grad_(False), options, CPU, Precision.fp32)
    policy = loaded.policy
    engine = build_engine(policy, options, ranks, weight_decay=0.0, clip=1.0, precision=Precision.fp32)
    # The first rank has most of the rows: it calls both heads more often than the second does.
    mine = rows[:-1] if ranks.first else rows[-1:]
    before, logprobs.CHUNK = logprobs.CHUNK, 3
    batch = collate(mine, loaded.pad_id)
    value = TokenValue("kl", kl_to_reference, reads_reference=True)
    request = ForwardRequest((PartRequest(len(mine), sum(row.tokens for row in mine), values=(value,)),))
    (shown,) = engine(batch, request, view_reference(frozen, batch, request))
    nll, kl = shown.nll, shown.values["kl"]
    engine.backward(nll.sum() / sum(row.tokens for row in rows), last=True)
    logprobs.CHUNK = before
    values = [nll.sum().item(), kl.abs().max().item(), engine.step(0.0)]
    save_folder(loaded, folder / f"{name}-{ranks.world}", engine.weights(), write=ranks.first, shard_bytes=4_000_000)
    figures = {
        "sharded": peak,
        "read": read,
        "copied": copied,
        "whole_now": whole_now,
        "reference": table.forget.tolist(),
        "nll": values[0],
        "kl": values[1],
        "norm": values[2],
    }
    (folder / f"{name}.rank{ranks.rank}.json").write_text(json.dumps(figures))
