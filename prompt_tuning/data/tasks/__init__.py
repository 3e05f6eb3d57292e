"""The tasks, with one table per benchmark."""
