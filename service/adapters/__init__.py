"""Adapters in the running service: which one answers, and how that changes under way."""
