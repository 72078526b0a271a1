"""The ground floor: files on disk, written whole or not at all."""
