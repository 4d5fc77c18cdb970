"""A node: hosts clients and trains the cohorts that the server asks for."""
