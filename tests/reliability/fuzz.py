"""Random overrides and mutated files: no traceback, no hang, a code that exists, a refusal in one line."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.pipeline.checkpoints import FORGET, RETAIN, write
from tests.reliability.commands import Ended, in_fork
from tests.reliability.damages import Base
from tests.reliability.trials import Trial

LIMIT = 60.0  # seconds for one input
MEMORY = 6 << 30  # bytes of address space above which an input counts as too greedy
VALUES = (
    "-1", "0", "1", "2", "1e400", "nan", "inf", "-inf", "null", "true", "''", "[]", "{}", "[[1],{a: 2}]", "1.5", "abc",
    "${seed}", "${nope}", "${oc.env:NOPE}", "???", "../../etc", "a" * 300, "é", "\u202e", "'\\0'", "[1,1,1]", "-0.0",
    "99999999999999999999", "1_000", "0x10", "{_target_: os.system}", "range(0,0)", "choice(1)", "*", "@", "a=b",
)  # fmt: skip
KEYS = (
    "seed", "method", "reward", "adversary", "attack", "model", "dataset", "engine", "stages", "cache", "output",
    "rerun", "plugins", "trainer.lr", "trainer.steps", "trainer.global_batch", "trainer.micro_batch", "trainer.epochs",
    "target.epochs", "target.lr", "method.beta", "method.retain", "method.nope", "model.layers", "model.width",
    "model.heads", "evaluation.max_new_tokens", "evaluation.rows", "dataset.forget_authors", "engine.processes",
    "engine.nodes", "engine.rendezvous", "tracker", "tracker.project", "report.margin", "hydra.run.dir",
    "attack.relearn.lr", "attack.nope", "benchmark", "artifacts.model", "trainer.schedule", "dataset.path",
    "experiment", "hydra.job.name", "trainer", "target", "",
)  # fmt: skip
MARKS = ("", "", "", "", "+", "++", "~", "--")
NASTY = (
    b"\xff\xfe", b"\x00", b"{", b"[" * 3000, b'"\\ud800"', b"\x1b[31m", b"NaN", b"1e999", b"null", b"\n\n", b"}}",
    "\u202e".encode(), b"<script>", b"-1", b'"', b",", b"[]", b"{}", b"true", b"99999999999999999999999",
)  # fmt: skip


def trials(base: Base, count: int, seed: int) -> Iterator[Trial]:
    """Yields `count` trials of one random input each, of four kinds in turn, behind one per kind that changes nothing.

    Args:
        base: whose finished run and model are mutated.
    """
    kinds: Sequence[tuple[str, Callable[[Base, Path, random.Random | None], Ended]]] = (
        ("overrides", _overrides),
        ("overrides", _overrides),
        ("data files", _data_file),
        ("run folders", _run_folder),
        ("model folders", _model_folder),
    )
    for kind, attempt in dict(kinds).items():

        def passes(folder: Path, attempt: Callable[[Base, Path, None], Ended] = attempt) -> str | None:
            ended = attempt(base, folder, None)
            return ended.fault or (None if ended.code == 0 else f"exit {ended.code}, not 0: {ended.last_line}")

        yield Trial(f"fuzzed {kind}", "untouched", passes)
    for number in range(count):
        kind, attempt = kinds[number % len(kinds)]

        def holds(
            folder: Path,
            attempt: Callable[[Base, Path, random.Random], Ended] = attempt,
            number: int = number,
        ) -> str | None:
            ended = attempt(base, folder, random.Random(f"{seed} {number}"))
            # A report shows what it could read above the line about what is damaged.
            return ended.fault if attempt is _run_folder else ended.refusal_fault

        yield Trial(f"fuzzed {kind}", f"seed {seed}, number {number}", holds)


def mutate(content: bytes, draws: random.Random) -> bytes:
    """Returns content with one to three random changes of bytes or of JSON values."""
    for _ in range(draws.randint(1, 3)):
        at = draws.randrange(len(content) + 1)
        kind = draws.randrange(5)
        if kind == 0:
            content = content[:at] + draws.choice(NASTY) + content[at:]
        elif kind == 1:
            content = content[:at] + content[at + draws.randint(1, 40) :]
        elif kind == 2:
            content = content[:at]
        elif kind == 3 and content:
            content = content[: at - 1] + bytes([draws.randrange(256)]) + content[at:]
        else:
            content = _other_type(content, draws)
    return content


def _other_type(content: bytes, draws: random.Random) -> bytes:
    """Gives one value of a JSON text another type; returns other content as it is."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        return content
    holders = [value] if isinstance(value, dict | list) else []
    for holder in holders:
        parts = list(holder.values()) if isinstance(holder, dict) else holder
        holders.extend(part for part in parts if isinstance(part, dict | list))
    holders = [holder for holder in holders if holder]
    if holders:
        holder = draws.choice(holders)
        key = draws.choice(list(holder)) if isinstance(holder, dict) else draws.randrange(len(holder))
        holder[key] = draws.choice((None, -1, "text", [], {}, [None], {"a": 1}, True, 1e308, "\u202e", [[[]]]))
    return json.dumps(value).encode()


def compose_and_plan(overrides: Sequence[str]) -> Ended:
    """Types a command and goes as far as its plan: nothing is trained."""

    def call() -> int:
        from erulab import run
        from erulab.launching.workers import RunExit

        run.run_job = lambda job: RunExit(0, "")  # type: ignore[attr-defined]
        sys.argv = ["erulab.run", *overrides]
        return run.cli()

    return in_fork(call, LIMIT, memory=MEMORY)


def prepare_run(overrides: Sequence[str]) -> Ended:
    """Types a command and goes as far as its data and base model: nothing is trained."""

    def call() -> int:
        import torch

        from erulab import worker
        from erulab.config.compose import compose_config, save_config
        from erulab.errors import ErulabError
        from erulab.launching.job import plan_job
        from erulab.ranks import Ranks

        def prepared(rundir, config, ranks, stop):  # type: ignore[no-untyped-def]
            context = worker.build_context(rundir, config, Ranks(), torch.device("cpu"), stop)
            if config.model.name == "hf":
                context.source.load(context.benchmark, 0)

        worker.run_rank = prepared
        try:
            job = plan_job(compose_config(list(overrides)))
            job.rundir.make()
            save_config(job.config, job.rundir.run_yaml)
            return worker.main([str(job.rundir.path)])
        except ErulabError as error:
            print(error)
            return error.code

    return in_fork(call, LIMIT, memory=MEMORY)


# Each of the following changes nothing if `draws` is None.
def _overrides(base: Base, folder: Path, draws: random.Random | None) -> Ended:
    typed = [f"output={folder}", "tracker=none", "engine=local"]
    for _ in range(draws.randint(1, 3) if draws else 0):
        assert draws is not None
        mark, key, value = draws.choice(MARKS), draws.choice(KEYS), draws.choice(VALUES)
        typed.append(f"{mark}{key}" if mark == "~" and draws.random() < 0.5 else f"{mark}{key}={value}")
    return compose_and_plan(typed)


def _data_file(base: Base, folder: Path, draws: random.Random | None) -> Ended:
    data = folder / "data"
    write(data, forget=FORGET, retain=RETAIN)
    if draws is not None:
        _mutate_rows(data, draws)
    return prepare_run(of_data(folder, data))


def _mutate_rows(data: Path, draws: random.Random) -> None:
    file = data / f"{draws.choice(('forget', 'retain'))}.jsonl"
    content = file.read_bytes()
    if draws.random() < 0.2:
        file.unlink()
        file.with_suffix(".jsonl.gz").write_bytes(mutate(gzip.compress(content), draws))
    else:
        lines = content.splitlines(keepends=True)
        at = draws.randrange(len(lines))
        lines[at] = mutate(lines[at], draws)
        file.write_bytes(b"".join(lines))


def of_data(folder: Path, data: Path) -> list[str]:
    """Returns the overrides of a run on these rows."""
    return ["dataset=jsonl", f"dataset.path={data}", f"output={folder / 'o'}", "tracker=none", "engine=local"]


def _run_folder(base: Base, folder: Path, draws: random.Random | None) -> Ended:
    (source,) = (base.folder / "finished").glob("*/*/run.yaml")
    copied = folder / "run"
    shutil.copytree(source.parent, copied, ignore=shutil.ignore_patterns("model", "plots"))
    names = ("scores.json", "attacks.json", "stages.json", "metrics.jsonl", "run.yaml", "intervals.json", "uds.json")
    how = "text"
    if draws is not None:
        for name in draws.sample(names, draws.randint(1, 2)):
            _remove_or_mutate(copied / name, draws)
        how = draws.choice(("text", "md", "csv", "json", "latex"))

    def call() -> int:
        from erulab import report

        return report.main([str(copied), "--format", how])

    return in_fork(call, LIMIT, memory=MEMORY)


def _model_folder(base: Base, folder: Path, draws: random.Random | None) -> Ended:
    model, data = folder / "model", folder / "data"
    (source,) = (base.folder / "finished").glob("*/*/model")
    shutil.copytree(source, model)
    write(data, forget=FORGET, retain=RETAIN)
    if draws is not None:
        _remove_or_mutate(draws.choice(sorted(model.iterdir())), draws)
    return prepare_run([*of_data(folder, data), "model=hf", f"model.path={model}"])


def _remove_or_mutate(file: Path, draws: random.Random) -> None:
    if draws.random() < 0.1:
        file.unlink()
    else:
        file.write_bytes(mutate(file.read_bytes(), draws))
