"""Errors that speak to a person: one line, and the exit code that names whose turn it is."""

from __future__ import annotations


class ErulabError(Exception):
    """A fault with one line for the user. `code` is the process's exit code."""

    code = 1


class ConfigError(ErulabError):
    """What the user typed or wrote in a config cannot be run."""

    code = 2


class DataError(ErulabError):
    """A data file or a set of rows cannot be used."""

    code = 3


class EnvironmentFault(ErulabError):
    """The machine lacks something: disk, port, GPU, hub, package."""

    code = 4


class NumericFault(ErulabError):
    """NaN or Inf in a loss, a gradient or a perturbation."""

    code = 5


class IntegrityFault(ErulabError):
    """A file is damaged, of another run, or not safe to load."""

    code = 6


class Interrupted(ErulabError):
    """Stopped by a signal; the same command continues."""

    code = 75
