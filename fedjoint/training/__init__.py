"""Local training: one client, or many as one batched program."""
