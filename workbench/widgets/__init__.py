"""Views of traces and runs for Jupyter: thin skins over functions that are tested without them."""
