"""Word lists and the vectors of their phrases."""
