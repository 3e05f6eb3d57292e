"""T5X trains, evaluates and runs prompts of this package; see docs/t5x.md."""
