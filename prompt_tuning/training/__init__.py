"""The optimizer, the training step, which computes gradients (`step.py`), and the loop."""
