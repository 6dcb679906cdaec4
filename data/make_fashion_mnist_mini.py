"""Cut `fashion-mnist-mini.npz` out of Fashion-MNIST: the first 400 training and 200 test images of each class.

    python data/make_fashion_mnist_mini.py [FOLDER]

FOLDER holds the four `*-ubyte.gz` files of Fashion-MNIST (Debian's package dataset-fashion-mnist puts them into
/usr/share/datasets/fashion-mnist); without it torchvision downloads them. The SHA-256 of each array is printed and
stands in data/README.md.
"""

import gzip
import hashlib
import sys
import tempfile
from pathlib import Path

import numpy as np

TRAIN_PER_CLASS, VAL_PER_CLASS = 400, 200
FILES = {"train": ("train", TRAIN_PER_CLASS), "val": ("t10k", VAL_PER_CLASS)}


def read_idx(path: Path, header: int) -> np.ndarray:
    """Bytes of an IDX file after its header."""
    with gzip.open(path) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def cut(folder: Path) -> dict[str, np.ndarray]:
    """The embedded arrays from the original files."""
    arrays = {}
    for split, (prefix, per_class) in FILES.items():
        images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
        labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 8)
        kept = np.sort(np.concatenate([np.flatnonzero(labels == c)[:per_class] for c in range(10)]))
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[kept], labels[kept]
    return arrays


def main() -> None:
    if len(sys.argv) > 1:
        arrays = cut(Path(sys.argv[1]))
    else:
        from torchvision.datasets import FashionMNIST

        with tempfile.TemporaryDirectory() as temporary:
            FashionMNIST(temporary, download=True)
            arrays = cut(Path(temporary) / "FashionMNIST" / "raw")
    np.savez_compressed(Path(__file__).with_name("fashion-mnist-mini.npz"), **arrays)
    for name, array in arrays.items():
        print(f"{name} {array.shape} sha256 {hashlib.sha256(array.tobytes()).hexdigest()}")


if __name__ == "__main__":
    main()
