"""Eq. 11 and appendix C: what mimicking does to gradients, expanded and measured."""
