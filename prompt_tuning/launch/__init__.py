"""Jobs for existing schedulers, rendered from `templates/` around one command."""
