"""What a run will take, from its config alone: no weights, no tokenizer, no torch, no network."""
