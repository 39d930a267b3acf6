"""Time-ordered splits, windows, scalers, and the registry of data sets."""
