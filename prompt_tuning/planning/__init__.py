"""What a training step will need and take on machines that aren't at hand."""
