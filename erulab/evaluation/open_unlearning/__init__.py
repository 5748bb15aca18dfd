"""open-unlearning's numbers (locuslab/open-unlearning) beside the right ones: `evaluation.compat=open_unlearning`.

Tables that were made with it stay comparable. What it does otherwise than erulab, as its code stands:

- ids are the template's own for the whole conversation, with end of text behind them where the last one is not that
  already: a template that ends with a newline (ChatML) gets a second end of turn, and both are scored;
- the attention mask hides every id that equals the pad token, and pad is end of text where there is none: then a
  prompt's own ends of turns are not seen, and in generation they count no position;
- 1e-10 is added to what is divided by; of a response, extraction strength and exact memorisation leave out the last
  token only, and a response without its last token has 1/T of extraction strength;
- responses are `generate`d with the model's own generation config, and their spaces before punctuation are closed.
"""

from erulab.evaluation.open_unlearning.arithmetic import against_oracle, summary
from erulab.evaluation.open_unlearning.protocol import figures

__all__ = ["against_oracle", "figures", "summary"]
