"""What is read off hidden states."""
