"""clipdex on a Ray cluster. Needs the extra: pip install '.[ray]'."""
