"""Plans: memory, FLOPs and hours of a run from its config alone; no weights, no tokenizer, no torch, no network."""
