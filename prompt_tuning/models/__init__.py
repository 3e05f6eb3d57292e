"""The frozen network: T5 in Flax Linen, and the one argument methods meet it through."""
