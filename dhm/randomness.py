"""Randomness as a function of where the training stands, so that a resumed run draws what it would have drawn."""

import hashlib
import operator

import torch


def seed_of(*position: int) -> int:
    """A seed for the given integers, e.g. (seed, epoch, step); neighbouring positions give unrelated seeds. Numpy's and
    torch's integers count as Python's, though they are written otherwise."""
    plain = tuple(map(operator.index, position))
    return int.from_bytes(hashlib.blake2b(repr(plain).encode(), digest_size=7).digest())


def generator(*position: int) -> torch.Generator:
    """A CPU generator that depends on the given integers alone."""
    return torch.Generator().manual_seed(seed_of(*position))
