"""Models: sources of base weights, loading and saving, adapters, packing, and the policy that training runs."""

from erulab.models import hf, smollm2, tiny

__all__ = ["hf", "smollm2", "tiny"]
