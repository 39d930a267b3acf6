"""The training loop, parameter roles and checkpoints."""
