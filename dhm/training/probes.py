"""Branches fitted on the frozen trunk of a network that was trained without them.

They ask what a baseline's inner representations already hold: the trunk does not learn from them, so its gradients
can be compared with those of networks whose branches trained it.
"""

import torch

from dhm.branches import BranchedNet
from dhm.config import Config
from dhm.data import ImageSet, load
from dhm.errors import InputError
from dhm.losses import DHMLoss
from dhm.randomness import seed_of
from dhm.records.record import RunRecord
from dhm.records.weights import load_trained
from dhm.training.parallel import connect
from dhm.training.progress import Bar
from dhm.training.step import optimizer_of
from dhm.zoo import network_of


def fit_branches(net: BranchedNet, config: Config, train: ImageSet, *, progress: bool = True) -> BranchedNet:
    """A baseline with the branches its configuration leaves out, fitted on its detached trunk.

    The trunk stays as it is, batch norm by its running statistics. The branches learn from cross-entropy alone, with
    the configuration's own optimiser, schedule, order and augmentation of the images.

    Args:
        net: the trained network; its weights are copied, not shared.
        config: of the run that trained it; `branches` says which are fitted.
        train: the images it was trained on.

    Returns:
        The network with its branches in eval mode, on the device of `train`.

    Raises:
        InputError: the configuration names no branches, or another network.
    """
    device = train.labels.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        branched = network_of(config.replace(method="dsl"), net.backbone.classifier.out_features)
        if not branched.roots:
            raise InputError(f"the run's branches are {config.branches!r}, so there are none to fit")
        try:
            branched.backbone.load_state_dict(net.backbone.state_dict())
        except RuntimeError:
            raise InputError(f"the network given is not the {config.network} of the configuration") from None
        branched.to(device)
        _fit(branched, config, train, progress)
    return branched.eval()


def load_branched(record: RunRecord, accelerator: str = "auto") -> BranchedNet:
    """The trained network of a finished run, on the CPU; of a baseline with its branches fitted by `fit_branches`.

    Args:
        accelerator: where they are fitted, in float32, see `dhm.training.parallel.connect`.
    """
    net, config = load_trained(record), record.config
    if config.method != "baseline":
        return net
    device = connect(accelerator, "32-true").device
    return fit_branches(net, config, load(config).train.to(device)).cpu()


def _fit(net: BranchedNet, config: Config, train: ImageSet, progress: bool) -> None:
    optimizer = optimizer_of(config, net.branches)
    loss = DHMLoss("dsl", label_smoothing=config.label_smoothing)
    net.backbone.eval()
    net.branches.train()
    steps = config.epochs * train.steps(config.batch_size)
    with Bar("branches", steps, "step", shown=progress) as bar:
        for epoch in range(config.epochs):
            for group in optimizer.param_groups:
                group["lr"] = config.lr_at(epoch)
            batches = train.train_batches(config.batch_size, config.seed, epoch, augment=config.augment)
            for step, (images, labels) in enumerate(batches):
                torch.manual_seed(seed_of(config.seed, epoch, step, 0))  # for dropout
                with torch.no_grad():
                    inner = net.representations(images)
                logits = {name: net.branches[name](inner[root]) for name, root in net.roots.items()}
                optimizer.zero_grad()
                loss(logits, labels)[0].backward()
                optimizer.step()
                bar.advance()
