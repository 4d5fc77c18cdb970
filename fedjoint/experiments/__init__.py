"""Experiments: ways of training side by side, over seeds, with intervals for what is claimed."""
