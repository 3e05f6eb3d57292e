"""The embedded dataset: a generated world and its tasks."""
