"""Adversaries: perturbations of hidden states while a method unlearns, one file each with its objective and sites.

Attacks on finished models are in attacks/.
"""

from erulab.adversaries import latent_pgd, noise, none, random_direction, relearning, rfa, sam

__all__ = ["latent_pgd", "noise", "none", "random_direction", "relearning", "rfa", "sam"]
