"""The tasks, one table a benchmark."""
