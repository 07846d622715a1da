"""Results that are kept anywhere, and the index that finds them."""
