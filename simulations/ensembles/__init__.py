"""What several models are worth as one: a table of docs/evidence.md."""
