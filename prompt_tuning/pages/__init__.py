"""Self-contained web pages on runs and sweeps: their content and Jinja templates."""
