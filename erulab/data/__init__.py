"""Data sets: readers and generators that give one typed Benchmark."""

from erulab.data import fictitious, jsonl, muse, tofu

__all__ = ["fictitious", "jsonl", "muse", "tofu"]
