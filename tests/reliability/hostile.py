"""Files made to harm: each is refused in one line with the code that fits, and no canary is touched."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tests.pipeline.checkpoints import FORGET, RETAIN, write
from tests.reliability.commands import Ended
from tests.reliability.damages import Base
from tests.reliability.fuzz import compose_and_plan, of_data, prepare_run
from tests.reliability.trials import Trial
from tests.samples.hostile import Canary, write_index

CONFIG, DATA, INTEGRITY = 2, 3, 6
LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
Make = Callable[[Path, Path], None]  # (model folder or data folder, canary): makes the folder hostile


def trials(base: Base, count: int | None = None) -> Iterator[Trial]:
    """Yields a trial for each hostile file.

    Args:
        base: whose model is changed.
        count: how many; None: all.
    """
    every = [
        *(_trial(base, "model", name, codes, make) for name, codes, make in MODELS),
        *(_trial(base, "data", name, codes, make) for name, codes, make in DATASETS),
        *(_override(name, codes, override) for name, codes, override in OVERRIDES),
    ]
    yield from every[:count]


def _trial(base: Base, of: str, name: str, codes: tuple[int, ...], make: Make) -> Trial:
    def holds(folder: Path) -> str | None:
        model, data, canary = folder / "model", folder / "data", folder / "canary"
        (source,) = (base.folder / "finished").glob("*/*/model")
        shutil.copytree(source, model)
        write(data, forget=FORGET, retain=RETAIN)
        make(model if of == "model" else data, canary)
        options = of_data(folder, data)
        ended = prepare_run([*options, "model=hf", f"model.path={model}"] if of == "model" else options)
        return _judge(ended, codes, canary)

    return Trial("hostile files", f"{of}: {name}", holds)


def _override(name: str, codes: tuple[int, ...], override: str) -> Trial:
    def holds(folder: Path) -> str | None:
        canary = folder / "canary"
        typed = override.replace("CANARY", str(canary))
        return _judge(compose_and_plan([f"output={folder / 'o'}", "tracker=none", typed]), codes, canary)

    return Trial("hostile files", f"override: {name}", holds)


def _judge(ended: Ended, codes: tuple[int, ...], canary: Path) -> str | None:
    if canary.exists():
        return "the canary was touched: code of the file ran"
    if ended.refusal_fault is not None:
        return ended.refusal_fault
    return None if ended.code in codes else f"exit {ended.code}, not {codes}: {ended.last_line}"


def _edit(file: Path, **changes: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def _only_pickle(model: Path, canary: Path) -> None:
    (model / "model.safetensors").unlink()
    torch.save({"a": Canary(canary)}, model / "pytorch_model.bin")


def _index_to_pickle(model: Path, canary: Path) -> None:
    from safetensors import safe_open

    with safe_open(model / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
    torch.save({"a": Canary(canary)}, model / "w.bin")
    (model / "model.safetensors").rename(model / "other.safetensors")
    write_index(model, dict.fromkeys(names, "w.bin"))


def _index_outside(model: Path, canary: Path) -> None:
    from safetensors import safe_open

    with safe_open(model / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
    shutil.copy(model / "model.safetensors", model.parent / "outside.safetensors")
    (model / "model.safetensors").rename(model / "other.safetensors")
    write_index(model, dict.fromkeys(names, "../outside.safetensors"))


def _pickle_as_safetensors(model: Path, canary: Path) -> None:
    (model / "model.safetensors").write_bytes(pickle.dumps(Canary(canary)))


def _overlapping_offsets(model: Path, canary: Path) -> None:
    header = {name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in ("a", "b")}
    text = json.dumps(header).encode()
    (model / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(16))


def _huge_header(model: Path, canary: Path) -> None:
    (model / "model.safetensors").write_bytes((1 << 62).to_bytes(8, "little") + b"{}")


def _auto_map(file: str) -> Make:
    def make(model: Path, canary: Path) -> None:
        (model / "code.py").write_text(f"import pathlib\npathlib.Path({str(canary)!r}).touch()\nclass C: ...\n")
        kinds = ("AutoConfig", "AutoModelForCausalLM", "AutoTokenizer")
        _edit(model / file, auto_map=dict.fromkeys(kinds, "code.C"), model_type="unknown_of_its_own")

    return make


def _changed(file: str, **changes: object) -> Make:
    return lambda model, canary: _edit(model / file, **changes)


def _template(text: str) -> Make:
    def make(model: Path, canary: Path) -> None:
        (model / "chat_template.jinja").write_text(text.replace("CANARY", str(canary)))

    return make


def _text(file: str, content: bytes) -> Make:
    def make(folder: Path, canary: Path) -> None:
        (folder / file).write_bytes(content)

    return make


def _without_tokenizer_model(model: Path, canary: Path) -> None:
    _edit(model / "tokenizer.json", model={"type": "BPE"})


def _cut_gzip(data: Path, canary: Path) -> None:
    content = (data / "retain.jsonl").read_bytes()
    (data / "retain.jsonl").unlink()
    # Every row is there; the checksum and the length behind them are not.
    (data / "retain.jsonl.gz").write_bytes(gzip.compress(content)[:-8])


def _untouched(folder: Path, canary: Path) -> None:
    """Changes nothing: what is refused below is refused for its fault."""


def _bomb(content: bytes, times: int) -> Make:
    def make(data: Path, canary: Path) -> None:
        (data / "forget.jsonl").unlink()
        with gzip.open(data / "forget.jsonl.gz", "wb", compresslevel=9) as file:
            for _ in range(times):
                file.write(content)

    return make


MODELS: tuple[tuple[str, tuple[int, ...], Make], ...] = (
    ("untouched", (0,), _untouched),
    ("pickle alone", (INTEGRITY,), _only_pickle),
    ("index names a pickle", (INTEGRITY,), _index_to_pickle),
    ("index names a file outside", (INTEGRITY,), _index_outside),
    ("pickle called safetensors", (INTEGRITY,), _pickle_as_safetensors),
    ("overlapping offsets", (INTEGRITY,), _overlapping_offsets),
    ("header of 4 EB", (INTEGRITY,), _huge_header),
    ("auto_map in config.json", (INTEGRITY,), _auto_map("config.json")),
    ("auto_map in tokenizer_config.json", (INTEGRITY,), _auto_map("tokenizer_config.json")),
    ("auto_map in generation_config.json", (0, INTEGRITY), _auto_map("generation_config.json")),
    ("template loops", (DATA, INTEGRITY), _template(LOOP)),
    ("template of 10 GB", (DATA, INTEGRITY), _template("{{ 'a' * 10 ** 10 }}")),
    ("template calls itself", (DATA, INTEGRITY), _template("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}")),
    ("template includes a file", (DATA, INTEGRITY), _template("{% include '/etc/passwd' %}")),
    (
        "template reaches os",
        (DATA, INTEGRITY),
        _template("{{ cycler.__init__.__globals__.os.system('touch CANARY') }}"),
    ),
    ("template is no UTF-8", (DATA, INTEGRITY), _text("chat_template.jinja", b"\xff\xfe{{ messages }}")),
    ("unknown model_type", (DATA, INTEGRITY), _changed("config.json", model_type="nope")),
    ("heads do not divide", (DATA, INTEGRITY), _changed("config.json", num_attention_heads=7)),
    ("width is a text", (DATA, INTEGRITY), _changed("config.json", hidden_size="wide")),
    ("negative layers", (DATA, INTEGRITY), _changed("config.json", num_hidden_layers=-1)),
    ("unknown activation", (DATA, INTEGRITY), _changed("config.json", hidden_act="nope")),
    ("config.json is a list", (DATA, INTEGRITY), _text("config.json", b"[]")),
    ("config.json is 200,000 deep", (DATA, INTEGRITY), _text("config.json", b"[" * 200_000)),
    ("tokenizer.json without a vocabulary", (DATA, INTEGRITY), _without_tokenizer_model),
    ("tokenizer.json is a list", (DATA, INTEGRITY), _text("tokenizer.json", b"[]")),
)
DATASETS: tuple[tuple[str, tuple[int, ...], Make], ...] = (
    ("untouched", (0,), _untouched),
    ("gzip bomb, one line", (DATA,), _bomb(b"a" * (1 << 24), 64)),
    ("gzip bomb, blank lines", (DATA,), _bomb(b"\n" * (1 << 24), 64)),
    ("2,000 deep", (DATA,), _text("forget.jsonl", b'{"prompt": ' + b"[" * 2000 + b"]" * 2000 + b"}\n")),
    ("200,000 deep", (DATA,), _text("forget.jsonl", b"[" * 200_000)),
    ("no UTF-8", (DATA,), _text("forget.jsonl", b'{"prompt": "\xff", "response": "b"}\n')),
    ("lone surrogate", (DATA,), _text("forget.jsonl", b'{"prompt": "\\ud800", "response": "b"}\n')),
    ("number for a text", (DATA,), _text("forget.jsonl", b'{"prompt": 1, "response": "b"}\n')),
    ("cut gzip", (DATA,), _cut_gzip),
)
OVERRIDES: tuple[tuple[str, tuple[int, ...], str], ...] = (
    ("harmless", (0,), "seed=3"),
    ("_target_", (CONFIG, INTEGRITY), "+method._target_=os.system"),
    ("_target_ in a list", (CONFIG, INTEGRITY), "stages=[{_target_: os.system, _args_: ['touch CANARY']}]"),
    ("_target_ of a group", (CONFIG, INTEGRITY), "+trainer.schedule={_target_: os.system}"),
    ("path of a preset", (CONFIG, INTEGRITY), "method=../../../../etc/passwd"),
    ("project outside", (CONFIG, INTEGRITY), "tracker.project=../../etc"),
    ("interpolation that evaluates", (CONFIG, INTEGRITY), "seed=${eval:1}"),
    ("environment in a number", (CONFIG, INTEGRITY), "seed=${oc.env:PATH}"),
    ("folder of 300 characters", (CONFIG, INTEGRITY), f"hydra.run.dir={'a' * 300}"),
)
