"""Training and scoring prompts from plain values: what the commands and Python share."""
