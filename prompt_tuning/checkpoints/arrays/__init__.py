"""Arrays that are still in their files: safetensors, PyTorch's and Flax's msgpack."""
