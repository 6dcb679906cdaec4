"""The objective: cross-entropies of all classifiers, and what each has to learn from every other (Eqs. 7-9)."""

from dhm.losses.divergences import pairwise_kl
from dhm.losses.objective import DHMLoss, taking_part, tracker_names

__all__ = ["DHMLoss", "pairwise_kl", "taking_part", "tracker_names"]
