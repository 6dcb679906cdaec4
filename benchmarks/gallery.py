"""Seconds and memory of a search of Market-1501's size: 3,368 queries in 15,913 images, both rankings with mAP and CMC.

    OMP_NUM_THREADS=1 python benchmarks/gallery.py

Descriptors (2,048 float64) and who is seen where (750 people, six cameras) are drawn at random.
"""

import resource
import time

import torch

from dhm.metrics.retrieval import Sightings, search

QUERIES, GALLERY, PEOPLE, CAMERAS, LENGTH = 3_368, 15_913, 750, 6, 2_048


def seen(count: int) -> tuple[torch.Tensor, Sightings]:
    """Descriptors of so many images, and whom they show."""
    return torch.randn(count, LENGTH).double(), Sightings(
        1 + torch.randint(PEOPLE, (count,)), 1 + torch.randint(CAMERAS, (count,))
    )


def peak() -> float:
    """GiB that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main() -> None:
    torch.manual_seed(0)
    queries, gallery = seen(QUERIES), seen(GALLERY)
    before, start = peak(), time.process_time()
    search(*queries, *gallery)
    taken = time.process_time() - start
    print(f"{taken:.1f} s of a processor; at most {peak():.2f} GiB, {before:.2f} before the search")


if __name__ == "__main__":
    main()
