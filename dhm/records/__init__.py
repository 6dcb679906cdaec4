"""What a run leaves: its record, checkpoints, environment; and networks from files."""
