"""Robust rules under attack: which of them hold, against what."""
