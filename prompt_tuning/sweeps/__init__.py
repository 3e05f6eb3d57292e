"""Many runs from one description: a grid of settings, its runs shared out, their results."""
