"""Data sets: readers and generators that give one typed Benchmark."""

from erulab.data import arc, fictitious, hub_rows, jsonl, mmlu, mmlu_categories, muse, rwku, tofu, wmdp

__all__ = ["arc", "fictitious", "hub_rows", "jsonl", "mmlu", "mmlu_categories", "muse", "rwku", "tofu", "wmdp"]
