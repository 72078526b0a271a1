"""Images and texts to vectors, in shared batches."""
