"""Where conflict between tasks is resolved: a table of docs/evidence.md."""
