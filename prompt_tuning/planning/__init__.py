"""Estimates of a training step's memory and time on any machine."""
