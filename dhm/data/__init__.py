"""Data sets by name, and their batches.

Batches are in channels-last layout, in which convolutions run fastest. A plain network of your own that is trained on
them on a CPU and has 1x1 convolutions with a stride on 2 to 15 channels should go through `dhm.onednn.keep_clear`
first; networks of `dhm.create_model` and `dhm.attach` have been.
"""

from dhm.data.images import Images
from dhm.data.sets import ImageSet, TrainAndTest
from dhm.data.sources import load, load_test
from dhm.data.streaming import Streamed

__all__ = ["ImageSet", "Images", "Streamed", "TrainAndTest", "load", "load_test"]
