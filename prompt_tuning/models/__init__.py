"""The frozen network: T5 in Flax Linen, and the `Injection` by which methods change it."""
