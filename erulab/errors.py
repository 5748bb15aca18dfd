"""Errors for users: one line each, and an exit code that says who can mend it."""

from __future__ import annotations


class ErulabError(Exception):
    """An error whose text is one line for the user. `code` is the exit code of the process."""

    code = 1


class ConfigError(ErulabError):
    """A config, typed or in a file, that cannot be run."""

    code = 2


class DataError(ErulabError):
    """A data file or a set of rows that cannot be used."""

    code = 3


class EnvironmentFault(ErulabError):
    """Something that the machine lacks: disk, port, GPU, hub, package."""

    code = 4


class NumericFault(ErulabError):
    """NaN or Inf in a loss, a gradient or a perturbation."""

    code = 5


class IntegrityFault(ErulabError):
    """A file that is damaged, belongs to another run, or is not safe to load."""

    code = 6


class Interrupted(ErulabError):
    """A run that a signal stopped; the same command continues it."""

    code = 75


class Damaged(Interrupted):
    """A product of the cache that was changed since it was written; the same command makes it again."""


class OutOfMemory(ErulabError):
    """Memory that could not be had; the same command continues, with settings that need less."""

    code = 75
