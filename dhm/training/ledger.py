"""Sums of the loss terms over an epoch."""

import math
from collections.abc import Iterable, Mapping

import torch

from dhm.errors import InputError, NonFiniteLoss
from dhm.training.parallel import gather


class Ledger:
    """Sums of named values over an epoch, weighted by images, and checked to be finite.

    Values stay on their device until `flush`, which a training loop calls every few steps: a GPU need not wait
    at each step, and still the first step that broke is found. Each of `world` processes keeps its own.
    """

    def __init__(self, epoch: int, sums: Mapping[str, float] | None = None, world: int = 1) -> None:
        self.epoch, self.world = epoch, world
        self.sums: dict[str, float] = dict(sums or {"images": 0.0})
        self._pending: list[tuple[int, int, dict[str, torch.Tensor]]] = []

    def add(self, step: int, shards: Iterable[tuple[int, dict[str, torch.Tensor]]]) -> None:
        """Note, for every shard of a step, its number of images and the mean values over them."""
        self._pending += [(step, images, values) for images, values in shards]

    def flush(self) -> None:
        """Bring pending values into the sums.

        Raises:
            NonFiniteLoss: one of them is NaN or infinite.
        """
        if not self._pending:
            return
        names = list(self._pending[0][2])
        table = torch.stack([torch.stack([values[name].float() for name in names]) for _, _, values in self._pending])
        for (step, images, _), row in zip(self._pending, table.tolist(), strict=True):
            for name, value in zip(names, row, strict=True):
                if not math.isfinite(value):
                    raise NonFiniteLoss(
                        f"epoch {self.epoch}, step {step}: the term {name} is {value}; the run stopped. "
                        "Lower the learning rate or train in 32-true precision"
                    )
                self.sums[name] = self.sums.get(name, 0.0) + value * images
            self.sums["images"] += images
        self._pending.clear()

    def totals(self) -> dict[str, float]:
        """The sums so far, over all processes."""
        self.flush()
        parts = gather(self.sums, self.world)
        return {name: sum(part.get(name, 0.0) for part in parts) for part in parts for name in part}

    def means(self) -> dict[str, float]:
        """Mean of every value over the images of the epoch so far, of all processes.

        Raises:
            InputError: no image could be read.
        """
        totals = self.totals()
        if not totals["images"]:
            raise InputError(
                f"epoch {self.epoch}: none of the training images could be read; once they can be, the same command "
                "goes on from the last checkpoint"
            )
        return {name: total / totals["images"] for name, total in totals.items() if name != "images"}


def know_nothing(means: Mapping[str, float], classes: int) -> bool:
    """Whether mimicking classifiers agree on the uniform prediction, by an epoch's mean loss terms.

    Agreement costs them nothing there, so they are slow to leave it.
    """
    divergences = [value for name, value in means.items() if name.startswith("kl/")]
    return bool(divergences) and max(divergences) < 1e-3 and means["ce/B0"] > 0.99 * math.log(classes)
