"""What attacks brought back: an attack carried out, the attempt that is chosen, the rows of attacks.json."""
