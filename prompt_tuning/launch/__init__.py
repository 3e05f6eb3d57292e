"""Job files for schedulers, rendered from `templates/` for one command."""
