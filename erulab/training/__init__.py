"""Training: batches, engines, objectives and the one loop that both learning and unlearning run through."""
