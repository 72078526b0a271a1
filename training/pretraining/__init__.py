"""The pretraining of the embedded model: image tower, text tower, and their common space."""
