"""The HTTP paths, one noun a file."""
