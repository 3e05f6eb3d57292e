"""Everything on disk: training state, frozen weights, prompts."""
