"""Sweeps: many runs from one grid of settings, shared by several workers, and their results."""
