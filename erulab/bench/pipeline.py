"""Measures the path of data from files to global batches in a process of its own: seconds and peak memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from erulab.data.jsonl import JsonlFiles, JsonlOptions
from erulab.errors import EnvironmentFault
from erulab.ranks import Ranks
from erulab.tokens.chat import ChatFormat
from erulab.tokens.encoder import Encoder
from erulab.tokens.truncation import truncate_to_context
from erulab.training.batches import Split
from erulab.training.encode_rows import content_hash, encode_exposed
from erulab.training.objective import BatchPlan, FinetuneObjective

BATCHES, GLOBAL_BATCH = 50, 64
FORGET_SHARE = 10  # one row in ten is to be forgotten
CONTEXT = 1024
STATUS = Path("/proc/self/status")
TEMPLATE = (
    "{% for m in messages %}{{ '<|start|>' + m['role'] + '\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
WORDS = (
    "river",
    "stone",
    "winter",
    "copper",
    "garden",
    "letter",
    "morning",
    "window",
    "silver",
    "market",
    "village",
    "harbor",
    "engine",
    "violin",
    "orchard",
    "lantern",
    "captain",
    "journal",
    "castle",
    "meadow",
    "thunder",
    "ribbon",
)


@dataclass(frozen=True)
class PassCost:
    """The cost of one pass over the files. Memory is anonymous: the page cache of mapped files is not in it."""

    rows: int
    tokens: int
    read: float  # seconds from files to checked tables of rows
    encode: float  # seconds for token ids, and the keys that stages make of them
    batches: float  # seconds for BATCHES global batches
    processor: float  # seconds of processor time for all three, which other jobs change little
    megabytes: float  # peak of anonymous memory, above that before the first row was read


def write_files(folder: Path, rows: int) -> None:
    """Writes forget.jsonl and retain.jsonl with different rows, whose responses have 5 to 40 words."""
    rng = random.Random(rows)
    forget = max(1, rows // FORGET_SHARE)
    for name, count in (("forget", forget), ("retain", rows - forget)):
        with (folder / f"{name}.jsonl").open("w") as file:
            for number in range(count):
                prompt = f"What does {name} author {number} say of the {rng.choice(WORDS)}?"
                response = " ".join(rng.choices(WORDS, k=rng.randint(5, 40)))
                file.write(json.dumps({"prompt": prompt, "response": f"{response}, {number}."}) + "\n")


def measure_in_child(folder: Path, cache: Path) -> PassCost:
    """Measures the files of `folder` in a fresh process.

    Raises:
        EnvironmentFault: this system does not report anonymous memory, or the process failed.
    """
    if not STATUS.is_file():
        raise EnvironmentFault("bench scaling reads memory from /proc/self/status, which only Linux has")
    child = subprocess.run(
        [sys.executable, "-m", "erulab.bench.pipeline", str(folder), str(cache)], capture_output=True, text=True
    )
    if child.returncode:
        raise EnvironmentFault(f"the measuring process ended with code {child.returncode}: {child.stderr[-500:]}")
    return PassCost(**json.loads(child.stdout.splitlines()[-1]))


def measure_pass(folder: Path, cache: Path) -> PassCost:
    """Reads, checks and encodes the rows and makes the first batches, as a run does."""
    chat = ChatFormat(_tokenizer(), CONTEXT)
    with _PeakMemory() as memory:
        started, processor = time.perf_counter(), time.process_time()
        rows = JsonlFiles(JsonlOptions(path=str(folder))).load(0, cache)
        read = time.perf_counter()
        encoder = Encoder(chat, rows.max_length, cache)
        benchmark = truncate_to_context(rows, encoder, cache)
        encoded = encode_exposed(encoder, benchmark.target_rows)
        content_hash(encoded)
        tokens = int(encoded.column("end").sum(dtype="int64"))
        encode = time.perf_counter()
        plan = BatchPlan(GLOBAL_BATCH, Split(), seed=0, pad_id=chat.pad_id, ranks=Ranks())
        objective = FinetuneObjective(encoded, plan, torch.device("cpu"))
        for step in range(BATCHES):
            objective.micro_batches(step)
        batches = time.perf_counter()
        processor = time.process_time() - processor
    return PassCost(
        len(encoded), tokens, read - started, encode - read, batches - encode, processor, memory.most / 2**20
    )


class _PeakMemory:
    """Watches the peak of this process's anonymous memory while the context is open, above that at its start."""

    def __enter__(self) -> _PeakMemory:
        self._first = self.most = 0
        self._first = self._anonymous_bytes()
        self._done = threading.Event()
        self._watch = threading.Thread(target=self._poll)
        self._watch.start()
        return self

    def __exit__(self, *fault: object) -> None:
        self._done.set()
        self._watch.join()

    def _poll(self) -> None:
        while not self._done.wait(0.01):
            self.most = max(self.most, self._anonymous_bytes() - self._first)

    @staticmethod
    def _anonymous_bytes() -> int:
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon:"))
        return int(line.split()[1]) * 1024


def _tokenizer() -> PreTrainedTokenizerFast:
    """Trains a byte-level BPE of 2,000 tokens on rows like those of the files."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=2000,
        special_tokens=["<|start|>", "<|end|>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    backend.train_from_iterator([" ".join(WORDS), "What does forget retain author say of the?"], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


if __name__ == "__main__":
    print(json.dumps(asdict(measure_pass(Path(sys.argv[1]), Path(sys.argv[2])))))
