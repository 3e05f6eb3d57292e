"""Predictions and scores of trained prompts."""
