"""Lazily read arrays in safetensors, PyTorch and Flax msgpack files."""
