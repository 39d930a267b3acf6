"""Whole networks: block, stack, heads, forecaster, and the zoo that knows them by name."""
