"""One module per recurrence: projections, gates, one kernel call."""
