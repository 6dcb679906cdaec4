"""Analyses of records and networks. Nothing here trains."""
