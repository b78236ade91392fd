"""Parameters: one schema, one merge, one check, safe schedules."""
