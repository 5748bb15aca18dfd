"""Data sets: readers and generators that give one typed Benchmark."""

from erulab.data import fictitious, jsonl, rwku, tofu

__all__ = ["fictitious", "jsonl", "rwku", "tofu"]
