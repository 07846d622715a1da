"""Statistics of raw values; nothing here reads files."""
