"""JSON files that users bring: read with one line for everything that can be wrong with their text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from erulab.errors import DataError


def read_json(file: Path) -> Any:
    """Returns the value in a file of JSON.

    Raises:
        DataError: the file cannot be read, is not UTF-8, no JSON, or nested too deep.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is no UTF-8 (byte {error.start}); write or fetch it again") from error
    except RecursionError as error:
        raise DataError(f"{file} is no valid JSON (nested too deep); write or fetch it again") from error
    except ValueError as error:
        raise DataError(f"{file} is no valid JSON: {error}; write or fetch it again") from error


def read_json_object(file: Path) -> dict[str, Any]:
    """Returns the object in a file of JSON.

    Raises:
        DataError: as `read_json`, or the file holds something other than an object.
    """
    content = read_json(file)
    if not isinstance(content, dict):
        raise DataError(f"{file} must hold a JSON object, got {type(content).__name__}")
    return content
