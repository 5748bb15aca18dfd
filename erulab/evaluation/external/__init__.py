"""Other programs that evaluate: lm-evaluation-harness asks its own questions, vLLM generates erulab's responses.

Neither is a requirement of erulab, so both are imported where they are used.
"""

from erulab.evaluation.external import harness

__all__ = ["harness"]
