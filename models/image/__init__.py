"""The image side of an encoder: preprocessing, runtimes, and the choice among them."""
