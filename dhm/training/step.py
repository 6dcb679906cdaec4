"""One training step, on one device or a share of it on each of several."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from dhm.branches import BranchedNet, Plan
from dhm.config import Config
from dhm.data import TrainAndTest, load
from dhm.errors import InputError
from dhm.losses import DHMLoss, taking_part
from dhm.memory import see_room
from dhm.metrics.classification import Predictions
from dhm.metrics.retrieval import Found
from dhm.randomness import seed_of
from dhm.records.weights import pretrained, start_from
from dhm.training.capture import Objective, own_gradients
from dhm.training.evaluation import answers
from dhm.zoo import plan_of


@dataclass
class Trainer:
    """Everything one step needs, on its device.

    The batch and the learning rate are the recipe's: a batch is divided over `world` processes, and by each into
    `accumulate` shards that run one after the other. World w with accumulation a gives the weights of one process
    with accumulation w a, up to rounding; only batch norm depends on w a, since it sees batch_size / (w a) images.
    """

    config: Config
    fabric: Fabric
    data: TrainAndTest
    net: BranchedNet  # the network itself
    model: nn.Module  # network and loss as Fabric wraps them: precision, several devices
    optimizer: torch.optim.Optimizer
    loss: DHMLoss
    accumulate: int = 1
    compiled: bool = False
    held: list[nn.Parameter] = field(default_factory=list)  # in the epochs that train new layers alone
    mimicking: list[str] | None = None  # side branches drawn for the epoch's mimicking; all of them where None

    def begin(self, epoch: int) -> None:
        """Training mode for an epoch, and the branches drawn that mimic in it.

        Held layers normalise by the statistics they came with and leave them alone.
        """
        self.net.train()
        if self.config.mimic_probability < 1:
            self.mimicking = taking_part(self.net.heads[1:], self.config.mimic_probability, self.config.seed, epoch)
        self.held = []
        if epoch < self.config.frozen_epochs:
            self.held = list(self.net.body().eval().parameters())

    def batches(self, epoch: int, start: int = 0) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """This process' share of every batch of an epoch, from step `start` on."""
        return self.data.train.train_batches(
            self.config.batch_size, self.config.seed, epoch, augment=self.config.augment, start=start,
            rank=self.fabric.global_rank, world=self.fabric.world_size,
        )  # fmt: skip

    def step(
        self, epoch: int, step: int, images: torch.Tensor, labels: torch.Tensor
    ) -> list[tuple[int, dict[str, torch.Tensor]]]:
        """One update of the weights by the mean loss over the whole batch, of which `images` are this process' share.

        Returns:
            For every shard its number of images, the loss terms and the share of right answers, without gradients.
        """
        shards = [(images[i :: self.accumulate], labels[i :: self.accumulate], share)
                  for i, share in enumerate(self._shares(step, labels))]  # fmt: skip
        if not shards:  # peers wait for this process' gradient, so it sends zeros
            shards = [(images.new_zeros(2, *images.shape[1:]), labels.new_zeros(2), 0.0)]
        self.optimizer.zero_grad()
        if self.compiled and len(shards) > 1:
            own_gradients(self.net.parameters())
        told = []
        for i, (x, y, share) in enumerate(shards):
            shard = self.fabric.global_rank + i * self.fabric.world_size
            torch.manual_seed(seed_of(self.config.seed, epoch, step, shard))  # for dropout
            with self.fabric.no_backward_sync(self.model, enabled=i + 1 < len(shards)):  # type: ignore[arg-type]
                total, figures = self.model(x, y, self.mimicking)
                self.fabric.backward(total * share)
            told.append((len(y) if share else 0, figures))
        for parameter in self.held:  # without a gradient the optimizer passes it over, weight decay included
            parameter.grad = None
        self.optimizer.step()
        return told

    def _shares(self, step: int, labels: torch.Tensor) -> list[float]:
        """What the mean over each shard counts in the mean over the batch, times `world`, by which peers are averaged.

        The batch is counted as it was planned: an unreadable image adds nothing, and the others weigh what they would.
        """
        size, train, world = self.config.batch_size, self.data.train, self.fabric.world_size
        planned = min(size, len(train) - step % train.steps(size) * size)
        counts = [len(labels[i :: self.accumulate]) for i in range(self.accumulate)]
        return [count * world / planned for count in counts if count]

    def test(self) -> Predictions | Found:
        """Predictions of every classifier on the test images; of a re-ID set what a search by B0's descriptor finds."""
        if self.fabric.world_size > 1:
            for buffer in self.net.buffers():  # running statistics are those of the first process
                torch.distributed.broadcast(buffer, 0)
        with self.fabric.autocast():
            return answers(self.net, self.data.test, self.fabric.global_rank, self.fabric.world_size)

    def state(self) -> dict[str, Any]:
        """Network, optimizer and, in half precision, the scale of the gradients."""
        state = {"net": self.net.state_dict(), "optimizer": self.optimizer.state_dict()}
        scale = self.fabric.strategy.precision.state_dict()
        return {**state, "scale": scale} if scale else state


def prepare(
    config: Config, fabric: Fabric, *, data_dir: str | Path | None = None, download: bool = False,
    accumulate: int = 1, workers: int | None = None, compile: bool = False,
) -> Trainer:  # fmt: skip
    """Check a configuration and build all that its training needs.

    Raises:
        InputError: a network, data set or compiler that cannot be had, or a batch that cannot be divided so often.
    """
    plan = plan_of(config)  # before the images are read
    weights = pretrained(config.arch, config.weights, download) if config.weights else None
    shards = fabric.world_size * accumulate
    if not 1 <= shards <= config.batch_size:
        raise InputError(
            f"a batch of {config.batch_size} cannot be divided over {fabric.world_size} devices with accumulate "
            f"{accumulate}; their product must be from 1 to {config.batch_size}"
        )
    data = load(config, data_dir, download, workers).to(fabric.device)
    _check_shards(plan, config.batch_size, data, shards)
    _see_room(plan, len(data.classes))
    torch.manual_seed(config.seed)
    net = plan.build(len(data.classes)).to(memory_format=torch.channels_last)
    if weights is not None:
        start_from(net, *weights, config.network)
    loss = DHMLoss(
        config.method, config.direction, config.temperature, config.ce_weights, config.mimic_weights,
        config.label_smoothing,
    )  # fmt: skip
    loss.check(net.heads)
    whole = range(min(config.batch_size, len(data.train)))[fabric.global_rank :: fabric.world_size][::accumulate]
    objective = Objective(net, loss, len(whole) if compile else None, fabric.device)
    model, optimizer = fabric.setup(objective, optimizer_of(config, net))
    return Trainer(config, fabric, data, net, model, optimizer, loss, accumulate, compile)


def _see_room(plan: Plan, classes: int) -> None:
    """See that the network fits with its gradients and one state of the optimizer."""
    with torch.device("meta"):
        net = plan.build(classes)
    count = sum(parameter.numel() for parameter in net.parameters())
    see_room(3 * 4 * count, f"the network's {count:,} parameters in training")


def _check_shards(plan: Plan, batch_size: int, data: TrainAndTest, shards: int) -> None:
    """See that batch norm has more than one value a channel in the smallest share of a batch, the last of an epoch."""
    last = len(data.train) % batch_size
    smallest = min(size // shards for size in (batch_size, last or batch_size))
    if smallest > 1:
        return
    with torch.device("meta"):
        net = plan.build(len(data.classes)).train()
    try:
        net(torch.zeros(1, 3, *data.train.size, device="meta"))
    except ValueError:
        raise InputError(
            f"a batch_size of {batch_size} leaves a single one of {len(data.train):,} images to a step, and its "
            "last feature map is 1x1: too little for batch norm; take another batch_size"
        ) from None


def optimizer_of(config: Config, net: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of a configuration; weight decay is part of the gradient in both.

    On a GPU torch takes all parameters at once (`foreach`) by the operations it takes here one by one. `fused` is not
    for these runs: its SGD fails where layers held until now have no momentum yet, and after a first step that half
    precision skips goes on with a momentum never written.
    """
    if config.optimizer == "amsgrad":
        return torch.optim.Adam(
            net.parameters(), lr=config.lr, betas=(config.momentum, 0.999), weight_decay=config.weight_decay,
            amsgrad=True,
        )  # fmt: skip
    return torch.optim.SGD(net.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay)
