"""The embedded dataset: a generated world, its corpus and eight tasks."""
