"""Model sources: where base weights, tokenizer and chat format come from."""

from erulab.models import hf, smollm2, tiny

__all__ = ["hf", "smollm2", "tiny"]
