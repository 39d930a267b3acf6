"""Real servers for tests, on this machine alone, gone with the test."""
