"""Vectors: embedding categories, and laying the vectors out for search."""
