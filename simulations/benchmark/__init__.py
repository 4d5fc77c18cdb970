"""How fast clients are trained, beside other ways to do the same.

python -m simulations.benchmark
"""
