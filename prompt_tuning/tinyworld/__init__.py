"""The embedded data set: a generated world, its corpus and eight tasks."""
