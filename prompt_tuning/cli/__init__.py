"""The commands; the only folder that uses gin."""
