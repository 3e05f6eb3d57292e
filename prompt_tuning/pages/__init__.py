"""Web pages on runs and sweeps, each one file: what is on them, and their Jinja templates."""
