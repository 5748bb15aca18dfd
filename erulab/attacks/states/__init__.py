"""Reading knowledge from hidden states."""
