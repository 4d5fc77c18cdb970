"""Real machines: keys, the SuperLink, SuperNodes and runs, on Flower's own programs."""
