"""Configuration errors and secrets: one line on stderr, the exit code, nothing started or written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from erulab.config import rules, text_rules
from erulab.config.compose import compose_config
from erulab.errors import ConfigError, EnvironmentFault
from erulab.launching import engine_choice
from erulab.launching.machine import GPU
from erulab.options import EngineName, EngineOptions
from tests.commands import Answer

BEST = ["trainer.keep=best", "trainer.eval_every=10"]
JUDGE = ["evaluation.judge.url=https://judge.example/v1", "evaluation.judge.url_model=m"]
CASES: list[tuple[str, list[str], list[str]]] = [
    ("1 unknown choice", ["method=npoo"], ["method='npoo'", "did you mean npo", "simnpo"]),
    ("1 unknown group", ["metod=npo"], ["metod", "did you mean method"]),
    ("1 unknown preset", ["experiment=nope"], ["experiment='nope'", "smollm2_tofu_forget01"]),
    ("1 unknown recipe", ["experiment=tofu/phi"], ["experiment='tofu/phi'", "did you mean tofu/phi_1_5"]),
    ("1 path as a recipe", ["experiment=../x"], ["'../x' is no option's name"]),
    ("1 one of several", ["attack=[relearn,nope]"], ["attack='nope'", "quantize, relearn"]),
    ("2 no key", ["=3"], ["'=3'", "KEY=VALUE"]),
    ("2 number for a name", ["method=5"], ["method='5'"]),
    ("2 boolean for a name", ["method=true"], ["method='true'"]),
    ("2 seed too large", ["seed=9223372036854775808"], ["seed must be between 0 and 2^63 - 1"]),
    ("2 type", ["method.beta=abc"], ["method.beta", "a number", "'abc'", "method.beta=2.5"]),
    ("2 whole number", ["seed=1.5"], ["seed", "a whole number", "1.5"]),
    ("2 bool", ["tracker.samples=maybe"], ["tracker.samples", "true or false"]),
    ("2 enum", ["method.retain=foo"], ["method.retain", "none, nll, kl", "'foo'"]),
    ("2 stage", ["stages=[foo]"], ["stages", "evaluate", "'foo'"]),
    ("2 added key", ["+method.foo=1"], ["unknown key method.foo", "method.beta"]),
    ("2 key of another choice", ["dataset.path=x"], ["unknown key dataset.path", "dataset=jsonl", "dataset=tofu"]),
    ("2 misspelt key", ["method.betta=1"], ["unknown key method.betta", "did you mean beta"]),
    ("2 added root key", ["+foo=1"], ["unknown key foo", "trainer"]),
    ("2 misspelt root key", ["outpt=/tmp"], ["unknown key outpt", "did you mean output"]),
    ("2 name of another", ["method.name=ga"], ["method.name=ga", "method=ga"]),
    ("2 name outside", ["dataset.name=../../etc"], ["type dataset=NAME, one of: fictitious, hub, jsonl"]),
    ("2 unreadable", ["x y"], ["'x y'", "KEY=VALUE"]),
    ("2 sweep without -m", ["method=npo,ga"], ["-m"]),
    ("2 config of a sweep", ["-m", "method=npo,ga", "--cfg", "job"], ["leave out -m"]),
    ("2 list of choices", ["method=[npo,ga]"], ["-m method=npo,ga"]),
    ("3 negative", ["trainer.lr=-1e-5"], ["trainer.lr must be > 0, got -1e-05", "set on the command line"]),
    ("3 zero", ["trainer.lr=0"], ["trainer.lr must be > 0, got 0"]),
    ("3 nan", ["trainer.lr=nan"], ["trainer.lr must be > 0, got nan"]),
    ("3 inf", ["trainer.lr=inf"], ["trainer.lr must be > 0, got inf"]),
    ("3 epochs", ["trainer.epochs=1e308"], ["trainer.epochs must be > 0 and at most 1000000, got 1e+308"]),
    ("3 epochs of the target", ["target.epochs=inf"], ["target.epochs must be > 0 and at most 1000000"]),
    ("3 epochs of an attack", ["attack.relearn.epochs=1e308"], ["attack.relearn.epochs must be > 0 and at most"]),
    ("3 beta", ["method.beta=-1"], ["method.beta must be > 0, got -1.0", "method.beta=2.5 (default)"]),
    ("4 sweep", ["-m", "method.beta=0.1,-1"], ["job 1", "method.beta must be > 0, got -1.0"]),
    ("4 sweep, flag inside", ["method=eru", "-m", "method.beta=0.1,-1"], ["job 1", "method.beta must be > 0"]),
    ("4 sweep choice", ["-m", "method=npo,npoo"], ["method='npoo'", "did you mean npo"]),
    ("5 batch", ["trainer.global_batch=32", "trainer.micro_batch=5"], ["32 is not 5 x n x 1", "micro_batch=4"]),
    ("5 z=batch", ["reward.z=batch", "trainer.micro_batch=8"], ["reward.z=batch", "trainer.micro_batch=64"]),
    ("5 z=batch, budget", ["reward.z=batch", "trainer.micro_tokens=512"], ["reward.z=batch", "micro_tokens=null"]),
    ("5 two sizes", ["trainer.micro_batch=8", "trainer.micro_tokens=512"], ["micro_tokens must be null where micro_b"]),
    ("6 compiled writes", ["trainer.compile=true", "adversary.sites=all_writes"], ["compile=true", "block_inputs"]),
    ("6 no adapter", ["artifacts.model=adapter"], ["model.lora.rank=0 trains no adapter", "model.lora.rank=16"]),
    (
        "6 optimizer",
        ["trainer.optimizer=adam"],
        ["one of adamw, adamw_8bit, paged_adamw_8bit, ada", "'adam'"],
    ),
    ("6 cut state", ["trainer.optimizer=adamw_8bit", "engine=zero1"], ["engine=zero1 cannot cut", "try engine=local"]),
    (
        "6 cut state, auto",
        ["trainer.optimizer=adafactor", "engine.processes=2"],
        ["engine=zero2 cannot", "engine=zero0"],
    ),
    ("6 4 bits, all weights", ["model.lora.quantize=nf4"], ["model.lora.rank=0 trains all", "try model.lora.rank=16"]),
    (
        "6 4 bits, zero3",
        ["model.lora.quantize=nf4", "model.lora.rank=8", "engine=zero3"],
        ["engine=zero3 cannot cut", "try engine=zero2"],
    ),
    ("6 no margin", ["method=ga", "reward=elastic"], ["method=ga", "reward=elastic", "method=npo"]),
    ("6 no reward", ["method=npo", "reward=none"], ["method=npo needs a reward", "reference_free"]),
    ("6 raw alpha", ["reward.z=raw", "reward.alpha=1"], ["reward.alpha must be < 1 with z=raw"]),
    ("6 task vector", ["method=task_vector", "adversary=rfa"], ["method=task_vector", "adversary=none"]),
    ("6 task vector, reward", ["method=task_vector", "reward=elastic"], ["method=task_vector has no margin"]),
    ("6 task vector, combine", ["method=task_vector", "trainer.combine=pcgrad"], ["no retain term", "combine=sum"]),
    ("6 task vector, lora", ["method=task_vector", "model.lora.rank=4"], ["all weights", "model.lora.rank=0"]),
    ("6 undo after nothing", ["method=undo", "method@method.first=none"], ["first=none trains no model", "first=npo"]),
    ("6 undo, lora", ["method=undo", "model.lora.rank=4"], ["all weights", "model.lora.rank=0"]),
    ("6 undo, reward", ["method=undo", "reward=none"], ["method=undo needs a reward"]),
    ("3 undo, first", ["method=undo", "method.first.beta=-1"], ["method.first.beta must be > 0, got -1.0"]),
    ("6 altpo pairs", ["method=altpo", "method.pairs=refusal"], ["method.pairs must be alternative", "got refusal"]),
    ("3 altpo template", ["method=altpo", "method.template=x"], ["method.template must be a text with {prompt} in it"]),
    ("3 relearning", ["adversary=relearning", "adversary.every=9"], ["adversary.every must be at most steps=8, got 9"]),
    ("6 relearning, zero3", ["method=tar", "engine=zero3"], ["adversary=relearning needs the whole gradient"]),
    ("6 sam, zero3", ["adversary=sam", "engine=zero3"], ["adversary=sam needs the whole gradient", "engine=zero2"]),
    ("6 pcgrad, zero3", ["trainer.combine=pcgrad", "engine=zero3"], ["trainer.combine=pcgrad needs", "engine=zero2"]),
    ("6 combine alone", ["method=ga", "trainer.combine=gru"], ["method=ga has no retain term", "method.retain=nll"]),
    ("6 sam, none", ["method=none", "adversary=sam"], ["method=none never trains on forget rows"]),
    (
        "6 retain ratio",
        ["method=ga", "trainer.retain_ratio=2"],
        ["retain_ratio=2 adds", "method=ga has no retain term"],
    ),
    ("5 retain ratio", ["trainer.retain_ratio=0.33"], ["trainer.retain_ratio=0.33", "whole number of retain rows"]),
    ("5 few retain rows", ["trainer.retain_ratio=0.1", "trainer.micro_batch=2"], ["one for each of", "retain_ratio=2"]),
    ("6 retrain", ["method=retrain", "adversary=rfa"], ["method=retrain", "adversary=none"]),
    ("6 retrain, reward", ["method=retrain", "reward=elastic"], ["method=retrain has no margin", "method=npo"]),
    ("6 retain term on no states", ["method=wga", "method.retain=states"], ["method.retain=states", "method=rmu"]),
    ("6 layer of no use", ["adversary.layer=1"], ["adversary.layer must be null with sites=block_inputs"]),
    ("6 dpo pairs", ["method=dpo", "method.pairs=none"], ["method.pairs must be"]),
    ("3 surprise", ["method.surprise=0"], ["method.surprise must be > 0"]),
    ("2 forget tokens", ["method.forget_tokens=spans"], ["method.forget_tokens", "all, span, surprising"]),
    ("6 idk tokens", ["method=idk", "method.forget_tokens=span"], ["method=idk trains on refusals", "method=npo"]),
    (
        "6 surprising, random base",
        ["method.forget_tokens=surprising", "stages=[target,unlearn]"],
        ["model=tiny are drawn at random", "add oracle to stages", "model.oracle=FOLDER"],
    ),
    (
        "6 surprising, target",
        ["model=hf", "model.path=a/b", "model.target=a/b", "method.forget_tokens=surprising", "stages=[unlearn]"],
        ["base model a/b is the target itself", "model.oracle=FOLDER"],
    ),
    ("3 no oracle", ["model.oracle=[]"], ["model.oracle must be null, a folder or hub id, or a list", "got []"]),
    ("3 oracle", ["model.oracle=[a/b,3]"], ["model.oracle must be null, a folder or hub id, or a list", "'a/b', 3"]),
    ("3 one oracle twice", ["model.oracle=[o/a,./o/a]"], ["model.oracle must be a list of different models, got"]),
    (
        "3 oracles",
        ["target.oracle_seeds=0"],
        ["target.oracle_seeds must be > 0, got 0", "oracle_seeds out"],
    ),
    (
        "6 oracles given and learned",
        ["model.oracle=[a/b,a/c]", "target.oracle_seeds=2"],
        ["target.oracle_seeds=2 learns", "model.oracle=a/b,a/c gives", "leave out one"],
    ),
    ("6 local", ["engine=local", "engine.processes=2"], ["engine=local is one process", "engine=zero2"]),
    ("6 local hosts", ["engine=local", "engine.nodes=2", "engine.rendezvous=a:1"], ["engine.nodes=2", "engine=zero2"]),
    ("6 auto is local", ["engine.processes=1", "engine.offload=cpu"], ["engine=local has not", "try engine=zero2"]),
    ("6 hosts", ["engine=zero2", "engine.nodes=2"], ["engine.nodes=2", "type engine.rendezvous=HOST:PORT"]),
    ("6 no port", ["engine.rendezvous=a"], ["engine.rendezvous must be HOST:PORT", "got a"]),
    ("6 port", ["engine.rendezvous=a:70000"], ["engine.rendezvous must be HOST:PORT", "65535"]),
    ("5 batch over hosts", ["engine.nodes=2", "engine.processes=3", "engine.rendezvous=a:1"], ["64 is not 10 x n x 6"]),
    ("6 attack", ["stages=[target,attack]"], ["attack needs the unlearned model", "attack=none"]),
    ("6 best of none", ["trainer.keep=best"], ["chooses among evaluations", "trainer.eval_every=10"]),
    ("6 best, oracle", [*BEST, "stages=[target,unlearn]"], ["needs an oracle", "add oracle", "model.oracle=FOLDER"]),
    ("6 best, no K", [*BEST, "dataset=rwku"], ["knowledge left, which dataset=rwku has not", "trainer.keep=last"]),
    ("3 floor", [*BEST, "trainer.keep_utility=90"], ["keep_utility must be between 0 and 1, got 90"]),
    ("6 no texts", ["dataset=wmdp"], ["no texts to forget", "dataset.forget=[FILE]", "stages=[evaluate,report]"]),
    ("6 no texts, idk", ["dataset=wmdp", "method=idk"], ["no texts to forget"]),
    ("6 no retain", ["dataset=wmdp", "dataset.forget=[a/b]"], ["method.retain=nll", "dataset.retain=[FILE]"]),
    ("6 subjects", ["benchmark=wmdp", "benchmark.wmdp.subjects=[bio,bio]"], ["some of bio,cyber,chem, each once"]),
    ("6 subject", ["benchmark=mmlu", "benchmark.mmlu.subjects=[magic]"], ["some of MMLU's 57 subjects", "[magic]"]),
    ("6 no stage", ["stages=[]"], ["stages=[]"]),
    ("6 rwku, retain", ["dataset=rwku", "method=npo"], ["method.retain=nll needs retain rows", "method.retain=none"]),
    ("6 rwku, rfa", ["dataset=rwku", "method.retain=none"], ["adversary.direction=forget_minus_retain needs retain"]),
    ("6 rwku, idk", ["dataset=rwku", "method=idk"], ["method=idk trains on refusals", "dataset.train=refusal"]),
    ("6 rwku, refusals", ["dataset=rwku", "dataset.train=refusal"], ["no answer for method=eru", "type method=idk"]),
    (
        "6 rwku, idk attacked",
        ["dataset=rwku", "dataset.train=refusal", "method=idk", "adversary=noise"],
        ["adversary=noise brings answers back"],
    ),
    ("6 rwku, dpo", ["dataset=rwku", "method=dpo"], ["type method.pairs=fabricated dataset.train=pair"]),
    (
        "6 rwku, flat",
        ["dataset=rwku", "method=flat"],
        ["method=flat compares each answer with a", "method=dpo"],
    ),
    (
        "6 rwku, jensun",
        ["dataset=rwku", "method=jensun"],
        ["jensun trains on refusals", "dataset.train=refusal"],
    ),
    ("6 rwku, idk_ap", ["dataset=rwku", "method=idk_ap"], ["method=idk_ap trains on refusals"]),
    (
        "6 rwku, preservation",
        ["dataset=rwku", "dataset.train=refusal", "method=idk_ap"],
        ["method=idk_ap needs retain rows", "another method", "dataset.retain=FILE"],
    ),
    ("6 rwku, js", ["dataset=rwku", "method=jensun", "dataset.train=refusal"], ["method.retain=js", "retain=none"]),
    ("6 rwku, pdu", ["dataset=rwku", "method=pdu"], ["method=pdu needs retain rows", "method=ga"]),
    ("6 texts, flat", ["dataset=muse", "method=flat"], ["method=flat needs refusals", "running text", "method=npo"]),
    (
        "6 texts, jensun",
        ["dataset=wmdp", "dataset.forget=[a/b]", "dataset.retain=[a/b]", "method=jensun"],
        ["method=jensun needs refusals, which answer a prompt"],
    ),
    ("6 pdu, no bound", ["method=pdu", "method.retain=none"], ["method.retain must be a term to constrain", "nll"]),
    ("6 flat, combine", ["method=flat", "trainer.combine=pcgrad"], ["method=flat has no retain term", "retain=nll"]),
    ("6 undial, reward", ["method=undial", "reward=elastic"], ["method=undial has no margin"]),
    ("3 ceu", ["method=ceu", "method.skip_first=-1"], ["method.skip_first must be >= 0, got -1"]),
    (
        "6 rwku, span",
        ["dataset=rwku", "method=npo", "method.retain=none", "method.forget_tokens=span"],
        ["method.forget_tokens=span needs the words", "type dataset.spans=true"],
    ),
    (
        "6 rwku, same sentence",
        ["dataset=rwku", "method=dpo", "method.retain=none", "method.pairs=same_sentence"],
        ["method.pairs=same_sentence needs the words", "type dataset.spans=true"],
    ),
    (
        "6 rwku, refusals marked",
        ["dataset=rwku", "method=idk", "method.retain=none", "dataset.train=refusal", "dataset.spans=true"],
        ["dataset.train=refusal has none", "type dataset.spans=false"],
    ),
    ("3 suites", ["evaluation.suites=[]"], ["evaluation.suites must be a list such as [forget*,retain], got []"]),
    ("3 judge", ["evaluation.judge.timeout=0"], ["evaluation.judge.timeout must be > 0, got 0", "on the command line"]),
    ("6 two judges", [*JUDGE, "evaluation.judge.model=a/b"], ["name two judges", "leave one of them out"]),
    ("6 no server", ["evaluation.judge.url_model=m"], ["url_model belongs to a server", "judge.url=https://HOST/v1"]),
    ("6 key of no server", ["evaluation.judge.key_variable=JUDGE_KEY"], ["key_variable belongs to a server"]),
    ("6 no model name", JUDGE[:1], ["the server's name of the model", "evaluation.judge.url_model=NAME"]),
    ("6 nothing to judge", [*JUDGE, "evaluation.generate=false"], ["evaluation.generate=false makes none"]),
    ("6 no evaluation", [*JUDGE, "stages=[target]"], ["nothing to read without the stage evaluate"]),
    ("6 no scheme", ["evaluation.judge.url=judge.example/v1"], ["no address of a server", "url=https://HOST/v1"]),
    ("6 other scheme", ["evaluation.judge.url=ftp://judge.example/v1"], ["no address of a server"]),
    ("6 no host", ["evaluation.judge.url=https:///v1"], ["no address of a server"]),
    ("6 no port", ["evaluation.judge.url=https://judge.example:port/v1"], ["no address of a server"]),
    ("6 unencrypted", ["evaluation.judge.url=http://judge.example/v1"], ["unencrypted; type https://..."]),
    ("6 nearly this machine", ["evaluation.judge.url=http://127.0.0.1.example/v1"], ["unencrypted"]),
    ("6 key in a query", ["evaluation.judge.url='https://judge.example/v1?key=abc'"], ["nothing may follow the path"]),
    ("6 plain variable", [*JUDGE, "evaluation.judge.key_variable=PATH"], ["must end in _KEY, _TOKEN or _SECRET"]),
    ("6 unset variable", [*JUDGE, "evaluation.judge.key_variable=NOT_SET_KEY"], ["export NOT_SET_KEY=KEY before"]),
    ("7 missing interpolation", ["cache=${nope}/x"], ["cache", "nope"]),
    ("7 cyclic interpolation", ["cache=${output}", "output=${cache}"], ["ecursive interpolation"]),
    ("7 null", ["trainer.lr=null"], ["trainer.lr must not be null"]),
    ("7 null group", ["method=null"], ["method is required", "npo"]),
    ("7 null attack", ["attack=null"], ["attack is required", "one of: ", "quantize, relearn"]),
    ("7 model path", ["model=hf"], ["model.path"]),
    ("7 template", ["model=phi_1_5", "model.template=x"], ["model.template must be", "inst", "model.template=null"]),
    ("8 _target_", ["+method._target_=os.system"], ["method._target_"]),
    ("8 _target_ deep", ["+x.y._target_=os.system"], ["x.y._target_"]),
    ("8 choice outside conf", ["experiment=../../etc/passwd"], ["experiment='../../etc/passwd'"]),
    ("8 name outside", ["tracker.project=../../x"], ["tracker.project", "plain name"]),
    ("8 long name", [f"output={'a' * 300}"], ["output", "255"]),
    ("plugin missing", ["plugins=[no_such_module]"], ["no_such_module"]),
    ("plugins no list", ["plugins={a: 1}"], ["plugins=[my_module]"]),
]


@pytest.mark.parametrize(("typed", "said"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_configuration_fault(typed: list[str], said: list[str], command: Callable[..., Answer], here: Path) -> None:
    """FAULTS 1 to 8."""
    answer = command(*typed)
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
    for part in said:
        assert part in answer.err
    assert answer.out == ""
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("typed", ["trainer.lr=0", "trainer.lr=abc", "trainer.lr=null", "target.epochs=-1"])
def test_no_default_of_another_model_is_proposed(typed: str, command: Callable[..., Answer]) -> None:
    # conf/trainer/tiny.yaml: 4e-4 and more, where the schema has 1e-5.
    said = command("model=tiny", typed).err
    key = typed.partition("=")[0]
    assert f"leave {key} out" in said and "(default)" not in said and f"try {key}=" not in said


def test_nul_in_a_name() -> None:
    # A shell cannot pass it; a preset's YAML can.
    with pytest.raises(ConfigError, match="output holds a NUL"):
        text_rules.check_texts({"output": "a\0b"})


def test_duplicate_key_in_a_preset(command: Callable[..., Answer], here: Path) -> None:
    """FAULTS 7."""
    (here / "own" / "experiment").mkdir(parents=True)
    preset = here / "own" / "experiment" / "twice.yaml"
    preset.write_text("# @package _global_\nseed: 1\nseed: 2\n")
    answer = command("--config-dir", "own", "experiment=twice")
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
    assert "twice.yaml:3" in answer.err
    assert "duplicate key seed" in answer.err


def test_plugins_in_a_preset_come_too_late(command: Callable[..., Answer], here: Path) -> None:
    (here / "own" / "experiment").mkdir(parents=True)
    (here / "own" / "experiment" / "late.yaml").write_text("# @package _global_\nplugins: [json]\n")
    answer = command("--config-dir", "own", "experiment=late")
    assert answer.code == 2
    assert "command line" in answer.err


@pytest.mark.parametrize(
    "typed",
    [
        "tracker.project=0123456789abcdef0123456789abcdef01234567",
        "model.path=hf_abcdefghijklmnopqrstuvwx",
        "output=sk-abcdefghijklmnopqrstuvwx",
        "trainer.lr=hf_abcdefghijklmnopqrstuvwx",
    ],
)
def test_secrets_are_refused_and_not_shown(typed: str, command: Callable[..., Answer], here: Path) -> None:
    """FAULTS 27."""
    answer = command("model=hf" if typed.startswith("model") else "seed=0", typed)
    assert answer.code == 2
    assert typed.partition("=")[2] not in answer.err + answer.out
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("secret", "typed"),
    [
        ("letmein", ["evaluation.judge.url=https://me:letmein@judge.example/v1"]),
        ("letmein", ["evaluation.judge.url=https://letmein@judge.example/v1"]),
        ("abcd-1234-efgh", [*JUDGE, "evaluation.judge.key_variable=abcd-1234-efgh"]),
        ("sk-abcdefghijklmnopqrstuvwx", [*JUDGE, "evaluation.judge.key_variable=sk-abcdefghijklmnopqrstuvwx"]),
    ],
)
def test_a_judges_key_is_refused_and_not_shown(
    secret: str, typed: list[str], command: Callable[..., Answer], here: Path
) -> None:
    answer = command(*typed)
    assert answer.code == 2 and len(answer.err.splitlines()) == 1
    assert secret not in answer.err + answer.out
    assert list(here.iterdir()) == []


def test_a_snapshot_path_is_no_secret() -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    text_rules.check_texts({"model": {"path": f"/hub/models--a--b/snapshots/{commit}"}})


@pytest.mark.parametrize(
    ("overrides", "processes", "equation", "fits"),
    [
        (["trainer.global_batch=32", "trainer.micro_batch=4"], 2, None, []),
        (["trainer.global_batch=30", "trainer.micro_batch=4"], 2, "30 is not 4 x n x 2", [24, 32]),
        (["trainer.global_batch=10"], 4, "10 is not 2 x n x 4", [8, 16]),
        (["trainer.global_batch=2"], 4, "2 is not 1 x n x 4", [4]),
    ],
)
def test_batch_equation(overrides: list[str], processes: int, equation: str | None, fits: list[int]) -> None:
    """FAULTS 5."""
    composed = compose_config(overrides)
    if equation is None:
        rules.check_batches(composed, processes)
        return
    with pytest.raises(ConfigError) as fault:
        rules.check_batches(composed, processes)
    assert equation in str(fault.value)
    for global_batch in fits:
        assert f"trainer.global_batch={global_batch}" in str(fault.value)
        # What is proposed is accepted.
        rules.check_batches(compose_config([*overrides, f"trainer.global_batch={global_batch}"]), processes)


def test_more_processes_than_gpus() -> None:
    """FAULTS 24."""
    composed = compose_config(["engine=zero2", "engine.processes=4"])
    with pytest.raises(EnvironmentFault, match=r"engine\.processes=4.* 2 GPUs.*engine\.processes=2"):
        engine_choice.check_machine(composed, [GPU("H200"), GPU("H200")])
    engine_choice.check_machine(composed, [GPU("H200")] * 4)


def test_bf16_on_an_old_gpu() -> None:
    """FAULTS 24."""
    composed = compose_config(["engine=local", "trainer.precision=bf16"])
    with pytest.raises(EnvironmentFault, match=r"V100.*trainer\.precision=fp32"):
        engine_choice.check_machine(composed, [GPU("V100", 7.0)])
    engine_choice.check_machine(composed, [GPU("A100", 8.0)])


def test_no_compiler_for_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAULTS 24."""
    composed = compose_config(["engine=zero2", "engine.processes=2"])
    monkeypatch.setenv("PATH", os.devnull)
    monkeypatch.delenv("CXX", raising=False)
    assert shutil.which("g++") is None
    with pytest.raises(EnvironmentFault, match=r"compiler.*engine=local"):
        engine_choice.check_machine(composed, [])
    engine_choice.check_machine(compose_config(["engine=local"]), [])


@pytest.mark.parametrize("works", [False, True])
def test_no_libaio_for_nvme(works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that cannot link against libaio, one that can, and then a folder that does not exist."""
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\nexit {0 if works else 1}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    asked = ["engine=zero3", "engine.offload=nvme", f"engine.nvme_path={tmp_path}"]
    if works:
        engine_choice.check_machine(compose_config(asked), [])
        with pytest.raises(EnvironmentFault, match=r"engine\.nvme_path=.*nowhere is no folder"):
            engine_choice.check_machine(compose_config([*asked, f"engine.nvme_path={tmp_path}/nowhere"]), [])
    else:
        with pytest.raises(EnvironmentFault, match=r"^engine\.offload=nvme needs libaio.*engine\.offload=cpu$"):
            engine_choice.check_machine(compose_config(asked), [])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["engine=local", "engine.offload=cpu"], r"engine\.offload=cpu needs a sharded optimizer.*try engine=zero2"),
        (["engine=zero2", "engine.offload=nvme", "engine.nvme_path=/tmp"], r"for engine=zero3, got engine=zero2"),
        (["engine=zero3", "engine.offload=nvme"], r"engine\.nvme_path=null do not fit.*engine\.nvme_path=FOLDER"),
        (["engine=zero3", "engine.nvme_path=/tmp"], r"engine\.offload=none and engine\.nvme_path=/tmp do not fit"),
    ],
)
def test_offload_that_has_no_meaning(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        compose_config(overrides)


@pytest.mark.parametrize(
    ("name", "processes", "gpus", "chosen"),
    [
        ("auto", None, 0, ("local", 1)),
        ("auto", None, 1, ("local", 1)),
        ("auto", None, 2, ("zero2", 2)),
        ("auto", 2, 0, ("zero2", 2)),
        ("auto", 1, 8, ("local", 1)),
        ("local", None, 8, ("local", 1)),
        ("zero3", None, 0, ("zero3", 1)),
        ("zero3", None, 8, ("zero3", 8)),
        ("zero1", 2, 8, ("zero1", 2)),
    ],
)
def test_engine_choice(name: str, processes: int | None, gpus: int, chosen: tuple[str, int]) -> None:
    engine = engine_choice.choose_engine(EngineOptions(EngineName[name], processes), gpus)
    assert (engine.name.name, engine.processes) == chosen


def test_several_hosts_take_zero2() -> None:
    for gpus, world in ((0, 2), (1, 2), (4, 8)):
        engine = engine_choice.choose_engine(EngineOptions(nodes=2, rendezvous="a:1"), gpus)
        assert (engine.name, engine.world) == (EngineName.zero2, world)
