"""The loss terms of the first training steps, where a learning rate that is too high shows at once.

    python benchmarks/first_steps.py --dataset tiny-imagenet-100 --image-size 64 --classes 10 --lr 0.05

Read: a line a step. Cross-entropies start near log(classes), divergences near 0.2; tens within ten steps are a blow-up.
Above them, for every classifier, the largest eigenvalue of the second moment of its features before the first step:
divided by the number of classes it is the curvature of that classifier's cross-entropy in its own weights.
"""

import argparse
import itertools

import torch

from dhm.config import Config
from dhm.paper import presets
from dhm.training.parallel import connect
from dhm.training.step import Trainer, prepare


def eigenvalues(trainer: Trainer, images: torch.Tensor) -> dict[str, float]:
    """By classifier, of the features (N, C) it sees in training mode."""
    features: dict[str, torch.Tensor] = {}
    modules = {"B0": trainer.net.backbone, **trainer.net.branches}
    hooks = [
        module.classifier.register_forward_pre_hook(lambda _, inputs, name=name: features.update({name: inputs[0]}))
        for name, module in modules.items()
    ]
    with torch.no_grad():
        trainer.net.all_logits(images)
    for hook in hooks:
        hook.remove()
    return {name: float(torch.linalg.eigvalsh(f.double().T @ f.double() / len(f))[-1]) for name, f in features.items()}


def main() -> None:
    """Print eigenvalues and terms."""
    command = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command.add_argument("--dataset", default="tiny-imagenet-100")
    command.add_argument("--image-size", type=int, default=64)
    command.add_argument("--classes", type=int)
    command.add_argument("--arch", default="resnet18")
    command.add_argument("--method", default="dhm")
    command.add_argument("--lr", type=float, default=0.1)
    command.add_argument("--batch-size", type=int, default=64)
    command.add_argument("--steps", type=int, default=24)
    command.add_argument("--accelerator", default="auto")
    given = command.parse_args()
    change = {name: getattr(given, name) for name in ("dataset", "image_size", "classes", "method", "lr", "batch_size")}
    settings = presets.settings("paper", given.arch) | change | {"augment": "fixed_scale"}
    trainer = prepare(Config.from_dict(settings), connect(given.accelerator, "32-true"))
    trainer.begin(0)
    epochs = itertools.chain.from_iterable(trainer.batches(epoch) for epoch in itertools.count())
    for step, (images, labels) in enumerate(itertools.islice(epochs, given.steps)):
        if step == 0:
            print(", ".join(f"{name} {value:.0f}" for name, value in eigenvalues(trainer, images).items()))
        ((_, terms),) = trainer.step(0, step, images, labels)
        print(step + 1, *(f"{name} {value:.2f}" for name, value in terms.items()), sep="  ", flush=True)


if __name__ == "__main__":
    main()
