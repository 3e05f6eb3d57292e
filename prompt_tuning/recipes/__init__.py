"""Training and scoring from plain values, shared by the commands and the Python API."""
