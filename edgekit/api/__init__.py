"""What a user does with edgekit, one module each: the functions below the public names."""
