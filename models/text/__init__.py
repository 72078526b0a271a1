"""The text side of an encoder: tokens, the tower, and shared prefixes."""
