"""What groups of clients with different models gain from one another: a table of docs/groups.md."""
