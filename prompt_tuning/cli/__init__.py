"""The commands, and the only place that knows gin."""
