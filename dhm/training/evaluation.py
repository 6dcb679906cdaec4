"""What a network answers on test images."""

from pathlib import Path

import torch
from torch import nn

from dhm.attach import AttachedNet
from dhm.branches import MAIN, BranchedNet
from dhm.config import Config
from dhm.data import ImageSet, load, load_test
from dhm.errors import InputError
from dhm.metrics.classification import Predictions, collect, judge
from dhm.metrics.retrieval import Found
from dhm.training.parallel import connect, gather, interleave


@torch.no_grad()
def find_people(net: BranchedNet, images: ImageSet, rank: int = 0, world: int = 1) -> Found:
    """What the search finds that these images are tested by, by B0's descriptor; no branch takes part.

    Of several processes each describes its share of the images; all return the whole.
    """
    task = images.task
    assert task is not None
    net.eval()
    described = [net.features(batch).float() for batch, _ in images.test_batches(batch_size(images), rank, world)]
    mine = torch.cat(described) if described else torch.empty(0, net.backbone.classifier.in_features)
    features = interleave([part[None] for part in gather(mine.cpu(), world)])[0].to(images.labels.device)
    return Found(MAIN, task.rank(features))


@torch.no_grad()
def predict(net: BranchedNet, images: ImageSet, rank: int = 0, world: int = 1) -> Predictions:
    """Predictions of every classifier of a network, in eval mode, on images of its own device.

    Of several processes each judges its share of the images, none twice; all return the whole table.
    """
    net.eval()
    batches = images.test_batches(batch_size(images), rank, world)
    judged = [judge(net.all_logits(batch), labels) for batch, labels in batches]
    mine = torch.cat(judged, dim=1) if judged else torch.empty(len(net.heads), 0, 4, dtype=torch.float64)
    return collect(net.heads, interleave(gather(mine.cpu(), world)), images.labels)


def accuracy(net: nn.Module, images: ImageSet) -> dict[str, float]:
    """Top-1 accuracy in percent of every classifier of a network, or of a plain network as B0."""
    branched = net if isinstance(net, BranchedNet | AttachedNet) else AttachedNet(net, {})
    summary = predict(branched, images).summary()  # type: ignore[arg-type]
    return {head: 100 - errors["top1_error"] for head, errors in summary.items()}


def answers(net: BranchedNet, images: ImageSet, rank: int = 0, world: int = 1) -> Predictions | Found:
    """Predictions of every classifier, or what a search finds where the images are tested by one."""
    return predict(net, images, rank, world) if images.task is None else find_people(net, images, rank, world)


def batch_size(images: ImageSet) -> int:
    """Test images that are run at once, so that they fit their device."""
    return 100 if images.labels.device.type == "cpu" else 1000 if images.image_size <= 64 else 250


def evaluate(
    net: BranchedNet, config: Config, *, data_dir: str | Path | None = None, download: bool = False,
    accelerator: str = "auto", workers: int | None = None, train: bool = False, numbered: bool | None = None,
) -> Predictions | Found:  # fmt: skip
    """Predictions of a trained network on the test images of a configuration; of a re-ID set what a search finds.

    Args:
        train: on the training images instead, without augmentation, against the labels they were trained with.
        numbered: what class names that are numbers mean in a folder without train/: the network's classes by number, or
            names in the order of words.

    Raises:
        InputError: the data set cannot be had, or has another number of classes than the network.
    """
    if train:
        data = load(config, data_dir, download, workers)
        images, classes = data.train, data.classes
    else:
        images, classes = load_test(config, data_dir, download, workers, numbered)
    outputs = net.backbone.classifier.out_features
    if len(classes) != outputs:
        raise InputError(f"the network has {outputs} classes, but {config.dataset} has {len(classes)}")
    fabric = connect(accelerator, config.precision)
    with fabric.autocast():
        return answers(net.to(fabric.device), images.to(fabric.device))
