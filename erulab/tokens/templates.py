"""Chat templates by name, and the overrides of a tokenizer's own template. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from erulab.errors import ConfigError, DataError

# Where a public protocol writes a row as text of its own, the text is the same here to the character. Each begins with
# the token that its tokenizer puts before every text, if it puts one. None has a system turn.
_TEMPLATE = (
    "{{{{ bos_token if add_bos else '' }}}}{{% for message in messages %}}"
    "{{% if message['role'] == 'assistant' %}}{{{{ {response} }}}}{{% elif message['role'] == 'user' %}}"
    "{{{{ {prompt} }}}}{{% endif %}}{{% endfor %}}"
)


def _turns(prompt: str, response: str) -> str:
    """Fills in the Jinja expressions that write a user's and an assistant's turn."""
    return _TEMPLATE.format(prompt=prompt, response=response)


TEMPLATES = {
    # Prompt, a space, response, end of text: for tokenizers without a template that no protocol is known for.
    "plain": _turns("message['content']", "' ' + message['content'] + eos_token"),
    # TOFU's Llama-2 (locuslab/tofu config/model_config.yaml; open-unlearning configs/model/Llama-2-7b-chat-hf.yaml):
    # no space after the tag, which the model's own template has, and no system turn.
    "inst": _turns("'[INST] ' + message['content'] + ' [/INST]'", "message['content'] + eos_token"),
    # TOFU's Phi-1.5 (the same file). "Answer: " is supervised and generated there too, and left out of what is scored.
    "question_answer": _turns(
        "'Question: ' + message['content'] + '\\n'", "'Answer: ' + message['content'] + eos_token"
    ),
}


@dataclass(frozen=True)
class PromptOverrides:
    """The user's chat template, system turn and tokenizer, in place of the model's own."""

    template: str | None = None  # Jinja; None: the tokenizer's own
    system: str | None = None  # the system turn before every prompt; None: what the template has by itself
    tokenizer: str | None = None  # folder or hub id of every model's tokenizer; None: each model's own


NO_OVERRIDES = PromptOverrides()


def template_of(choice: str | None) -> str | None:
    """Returns the Jinja text that `model.template` names: one of `TEMPLATES`, or a file.

    Raises:
        ConfigError: `choice` is neither.
        DataError: the file cannot be read, or is no UTF-8.
    """
    if choice is None or choice in TEMPLATES:
        return None if choice is None else TEMPLATES[choice]
    if not Path(choice).is_file():
        raise ConfigError(
            f"model.template must be one of {', '.join(TEMPLATES)}, a file of Jinja, or null for the tokenizer's own, "
            f"got {choice}; try model.template=null"
        )
    try:
        return Path(choice).read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"model.template={choice} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"model.template={choice} is no UTF-8 (byte {error.start}); convert it: iconv -f latin1 -t utf-8"
        ) from error
