"""Notebooks, executed headless: engine, report, pictures."""
