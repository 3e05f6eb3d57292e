"""Analyses of learned prompts, methods and sweeps."""
