"""Jobs for schedulers that exist: a text for each, made of one command."""
