"""Costs of a run: parameters, FLOPs and bytes in closed form, and a ledger of the work that was done. No torch."""
