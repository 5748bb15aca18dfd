"""Parts of model folders that are made to do harm."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any


class Canary:
    """A pickle that makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def write_index(model: Path, weight_map: Mapping[str, str]) -> None:
    """Writes an index of weights: the name of a weight -> the file that holds it."""
    index = {"metadata": {}, "weight_map": dict(weight_map)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
