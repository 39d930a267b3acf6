"""One question per file: Params, run() -> Result."""
