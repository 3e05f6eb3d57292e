"""Frozen models: locations, and formats to read and write."""
