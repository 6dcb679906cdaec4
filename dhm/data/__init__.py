"""Data sets by name, and their batches."""

from dhm.data.images import Images
from dhm.data.sets import ImageSet, TrainAndTest
from dhm.data.sources import load, load_test
from dhm.data.streaming import Streamed

__all__ = ["ImageSet", "Images", "Streamed", "TrainAndTest", "load", "load_test"]
