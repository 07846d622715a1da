"""What was measured, for people: a table, a verdict, one page."""
