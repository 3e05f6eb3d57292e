"""Trained prompts and adapters: our files, PEFT's and T5X's."""
