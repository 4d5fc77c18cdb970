"""How a Ray cluster of several machines scales: ``python -m simulations.scale``."""
