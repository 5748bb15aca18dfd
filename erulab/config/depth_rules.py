"""The checks of options that name layers, once the model's depth is known."""

from __future__ import annotations

from erulab.adversaries.ablation import AblationOptions, ablated_layers
from erulab.adversaries.balls import perturbed_layer
from erulab.adversaries.noise import NoiseOptions
from erulab.errors import ConfigError
from erulab.methods.base import forgetting_options, gradient_method
from erulab.options import RunConfig


def check_layers(config: RunConfig, depth: int) -> None:
    """Checks that the layers that options of method and adversary name are in the model.

    Args:
        config: of a run that unlearns.
        depth: blocks of the model.
    Raises:
        ConfigError: one is beyond the depth; says which there are.
    """
    method, adversary = gradient_method(config.method), config.adversary
    if method is None:
        return
    first = ".first" if forgetting_options(config.method) is not config.method else ""
    try:
        method.layers(depth)
    except ValueError as error:
        raise ConfigError(f"method{first}.{error}") from error
    if isinstance(adversary, NoiseOptions):
        perturbed_layer(adversary.layer, depth)
    if isinstance(adversary, AblationOptions):
        ablated_layers(adversary, depth)
