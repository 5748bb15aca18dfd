"""Text becomes token ids here and nowhere else: chat formats, encoding, truncation to the context, batches."""
