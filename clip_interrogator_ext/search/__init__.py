"""Find the phrases that describe a picture, and join them."""
