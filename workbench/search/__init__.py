"""Optuna studies over experiments: spaces, trials, workers, study folders."""
