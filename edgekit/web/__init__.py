"""A browser as a device: the server, its page, and what browsers send back."""
