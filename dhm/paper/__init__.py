"""What the paper printed and trained: its numbers, settings and the runs behind its tables."""
