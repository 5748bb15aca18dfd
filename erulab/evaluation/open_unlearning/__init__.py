"""The figures that open-unlearning (locuslab/open-unlearning) computes, next to the right ones:
`evaluation.compat=open_unlearning`.

They keep tables comparable that were made with open-unlearning. Its code differs from erulab in these points:

- The ids of a row are the template's ids for the whole conversation, followed by end of text unless the last id already
  is that. A template that ends with a newline (ChatML) thus gets a second end of turn, and both are scored.
- The attention mask hides every id that equals the pad token, and the pad token is end of text if the tokenizer has
  none. The ends of turns inside a prompt are then hidden, and in generation they count as no position.
- 1e-10 is added to divisors. Extraction strength and exact memorisation leave out the last token of a response only,
  and a response whose last token does not follow has an extraction strength of 1/T.
- Responses come from `generate` with the model's own generation config, and spaces before punctuation are removed.
"""

from erulab.evaluation.open_unlearning.arithmetic import (
    PREFIX,
    compat_forget_quality,
    row_closeness,
    suite_figures,
    utility_parts,
)
from erulab.evaluation.open_unlearning.protocol import row_figures

__all__ = ["PREFIX", "compat_forget_quality", "row_closeness", "row_figures", "suite_figures", "utility_parts"]
