"""Statistics, the protocol and its verdicts, and the report over all records."""
