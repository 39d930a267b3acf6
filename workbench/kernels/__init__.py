"""Pure functions on tensors, one folder per recurrence. Imports torch only."""
