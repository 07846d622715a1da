"""Judge measurements: summaries, gates, comparisons, energy, layers."""
