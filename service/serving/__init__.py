"""Which index, adapter and model answer; for HTTP, command line and Ray."""
