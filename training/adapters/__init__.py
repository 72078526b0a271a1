"""Adapters: what fine-tuning produces, on disk."""
