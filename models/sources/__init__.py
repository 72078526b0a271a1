"""Model ids to files: names, open_clip's tags, the hub, the cache."""
