"""From a trained prompt to predictions and scores."""
