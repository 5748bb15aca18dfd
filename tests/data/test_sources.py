"""Messages name the key that was typed: the data set's, or that of a benchmark measured beside it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from erulab.data.muse import MuseOptions
from erulab.data.rwku import RwkuOptions
from erulab.data.tofu import TofuOptions
from erulab.errors import ConfigError, DataError, ErulabError
from erulab.registry import Registry, benchmarks, datasets
from tests.data.test_tofu import TOFU
from tests.samples.rwku_files import hub_layout

BOTH = ("tofu", "rwku", "muse", "wmdp")  # are unlearned or measured beside another
FILES = [name for name in benchmarks.names() if name != "lm_eval"]  # whose questions the harness finds
KEYS = [(benchmarks, name, f"benchmark.{name}") for name in FILES]
KEYS += [(datasets, name, "dataset") for name in BOTH]


@pytest.mark.parametrize(("registry", "name", "key"), KEYS)
def test_the_key_is_the_one_that_was_typed(registry: Registry, name: str, key: str) -> None:
    def said(path: str | None) -> str:
        with pytest.raises(ErulabError) as caught:
            registry.build(registry[name].options(path=path)).validate()
        return str(caught.value)

    assert said("./nowhere").startswith(f"{key}.path=./nowhere is no folder and no hub id; type {key}.path=")
    if name != "muse":  # where null is the corpus on the hub
        assert said(None).startswith(f"{key}.path must be a folder or hub id, got null; type {key}.path=")


@pytest.mark.parametrize(("registry", "key"), [(datasets, r"dataset"), (benchmarks, r"benchmark\.rwku")])
def test_every_key_of_rwku(registry: Registry, key: str, tmp_path: Path) -> None:
    folder = hub_layout(tmp_path / "rwku")
    with pytest.raises(ConfigError, match=rf"^{key}\.targets: .* has no target 'Ada Lun'"):
        registry.build(RwkuOptions(path=str(folder), targets=["Ada Lun"])).validate()
    with pytest.raises(DataError, match=rf"^{key}\.retain=nowhere is no file"):
        registry.build(RwkuOptions(path=str(folder), targets=["Ada Lund"], retain="nowhere")).validate()
    (folder / "Target" / "1_Ada_Lund" / "neighbor_level2.json").unlink()
    with pytest.raises(DataError, match=rf"has no neighbor_level2\.json \({key}\.targets=Ada Lund\)"):
        registry.build(RwkuOptions(path=str(folder), targets=["Ada Lund", "Bo Ek"])).load(0, tmp_path)
    (folder / "Target" / "2_Bo_Ek" / "positive.json").unlink()
    with pytest.raises(DataError, match=rf"has no positive\.json \({key}\.train=positive\)"):
        registry.build(RwkuOptions(path=str(folder), targets=["Bo Ek"])).validate()


@pytest.mark.parametrize(("registry", "key"), [(datasets, r"dataset"), (benchmarks, r"benchmark\.muse")])
def test_every_key_of_muse(registry: Registry, key: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"none of MUSE's files \(.*; {key}\.path\)"):
        registry.build(MuseOptions(path=str(tmp_path))).validate()
    with pytest.raises(DataError, match=rf"no sust/forget_1 \({key}\.requests=\[1\]\)"):
        registry.build(MuseOptions(path=str(tmp_path), requests=[1])).validate()


@pytest.mark.skipif(not TOFU.is_dir(), reason=f"TOFU's files are not at {TOFU}")
@pytest.mark.parametrize(("registry", "key"), [(datasets, r"dataset"), (benchmarks, r"benchmark\.tofu")])
def test_every_key_of_tofu(registry: Registry, key: str, tmp_path: Path) -> None:
    folder = tmp_path / "tofu"
    folder.mkdir()
    for file in TOFU.glob("*.json*"):
        shutil.copyfile(file, folder / file.name)
    with pytest.raises(ConfigError, match=rf"^{key}\.retain_rows must be at most 3960"):
        registry.build(TofuOptions(path=str(folder), retain_rows=4000)).load(0, tmp_path)
    notes = " ".join(registry.build(TofuOptions(path=str(folder))).load(0, tmp_path).notes)
    assert re.search(rf"type {key}\.retain_rows=3920", notes)
    rows = (folder / "retain99.json").read_text().splitlines()
    forgotten = json.loads((folder / "forget01.json").read_text().splitlines()[0])
    (folder / "retain99.json").write_text("\n".join([*rows, json.dumps(forgotten)]))
    with pytest.raises(DataError, match=rf"type {key}\.allow_overlap=true"):
        registry.build(TofuOptions(path=str(folder))).load(0, tmp_path)
    (folder / "retain99.json").unlink()
    with pytest.raises(DataError, match=rf"no retain99\.json \({key}\.path, {key}\.split=forget01\)"):
        registry.build(TofuOptions(path=str(folder))).validate()
