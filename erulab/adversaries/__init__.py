"""Training-time adversaries: context managers around the forget forward."""

from erulab.adversaries import latent_pgd, noise, none, random_direction, rfa

__all__ = ["latent_pgd", "noise", "none", "random_direction", "rfa"]
