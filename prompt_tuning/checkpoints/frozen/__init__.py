"""Frozen models: where they are, the formats they are read from, and those they are written in."""
