"""Calls of transformers on files that users bring: whatever it raises on a faulty file becomes one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import transformers
from transformers import AutoConfig, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from erulab.errors import DataError, ErulabError
from erulab.faults import cause_of, machine_fault
from erulab.json_files import read_json_object
from erulab.models.folders import local_folder


@contextlib.contextmanager
def faults_of(problem: str) -> Iterator[None]:
    """Turns every error of a library inside the block into a DataError. Only calls of a library belong inside.

    A faulty config.json or tokenizer.json ends in errors of any type (KeyError of an activation, a bare Exception of
    tokenizers). Lack of memory is no fault of a file, and errors of erulab have their line already.

    Args:
        problem: the line, up to its cause; "{cause}" stands for the first line of the library's own error.
    Raises:
        DataError: the block raised an error of a library.
    """
    try:
        yield
    except ErulabError:
        raise
    except Exception as error:
        if machine_fault(error) is not None:
            raise
        raise DataError(problem.replace("{cause}", cause_of(error))) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of tokenizers, which is no Exception
            raise
        raise DataError(problem.replace("{cause}", cause_of(error))) from error


def config_of(source: str) -> PreTrainedConfig:
    """Reads config.json of a folder or hub id as transformers does.

    Raises:
        EnvironmentFault, IntegrityFault, DataError: as `local_folder`.
        DataError: transformers does not know the architecture, or refuses a field.
    """
    folder = local_folder(source)
    file = folder / "config.json"
    kind = read_json_object(file)["model_type"]
    if kind not in CONFIG_MAPPING:
        raise DataError(
            f"{file} names model_type {kind}, which the installed transformers {transformers.__version__} does not "
            "know; a newer one may (pip install -U transformers), or take another model"
        )
    with faults_of(f"{file} cannot be used: {{cause}}; fetch the file again"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
