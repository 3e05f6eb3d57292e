"""Modules for other frameworks, which import a library that isn't installed with this package."""
