"""Hydra launchers of erulab; Hydra finds them through the namespace package hydra_plugins."""
