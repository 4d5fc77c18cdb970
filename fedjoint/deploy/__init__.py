"""Real machines: keys, the server, nodes and runs."""
