"""The optimizer, the step and the loop; what is differentiated is in `step.py`."""
