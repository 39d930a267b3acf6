"""The run folder: parameters, status, metrics, figures, and where each came from."""
