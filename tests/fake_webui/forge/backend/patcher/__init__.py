"""A small stand-in for Forge's package of that name."""
