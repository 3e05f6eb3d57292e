"""Many runs from one description: a grid of settings, workers that share it, results."""
