"""Multiply-adds, counted on the networks themselves: what an answer costs, what training costs, and a fair price."""

import functools
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from dhm.branches import MAIN, BranchedNet, answering
from dhm.config import Config
from dhm.zoo import network_of

NETWORK = ("arch", "options", "branches", "method", "isolated")
"""Settings that say which network is trained."""
PASSED_OVER = (F.batch_norm, F.relu, F.relu_)
"""What multiplies nothing and leaves shapes as they are, and is slow on the device "meta"."""
MIMICKING = ("branches", "direction", "temperature", "ce_weights", "mimic_weights", "mimic_probability")
"""Settings that have no meaning for the plain network."""


def flops(net: BranchedNet, image_size: int | tuple[int, int] = 32) -> dict[str, int]:
    """Multiply-adds of one image, by owner: B0 (with the trunk) and what each branch adds while training.

    Inference runs B0 alone. A network on the device "meta" is counted without computing.
    """
    with answering(net), torch.no_grad():
        image = blank(net.backbone, image_size)
        inner = net.representations(image)
        parts: dict[str, tuple[nn.Module, torch.Tensor]] = {MAIN: (net.backbone, image)}
        parts |= {name: (net.branches[name], inner[root]) for name, root in net.roots.items()}
        counts = {}
        for name, (module, x) in parts.items():
            with Counter() as counter:
                module(x)
            counts[name] = counter.forward
    return counts


def inference_flops(net: BranchedNet, image_size: int | tuple[int, int] = 32) -> int:
    """Multiply-adds of one image through the network in eval mode, counted as `flops` counts them."""
    with answering(net), torch.no_grad(), Counter() as counter:
        net(blank(net, image_size))
    return counter.forward


def operations(module: Callable[[torch.Tensor], Any], images: torch.Tensor) -> int:
    """Operations of any module or function on images, as torch counts them: two a multiply-add."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module(images)
    return counter.get_total_flops()


def blank(net: nn.Module, image_size: int | tuple[int, int]) -> torch.Tensor:
    """A black image (1, 3, H, W) on the network's own device, which may be "meta"."""
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    return torch.zeros(1, 3, height, width, device=next(net.parameters()).device)


def training_flops(config: Config, image_size: int | tuple[int, int] | None = None) -> int:
    """Multiply-adds of one training image in a run: forward through all that is trained, and backward.

    Counted operation by operation, so the first convolution sends nothing back to the image. The losses, batch norm and
    the optimizer are left out.

    Args:
        image_size: pixels of a side, or height and width; by default the configuration's, and CIFAR's 32 where it names
            none.
    """
    branched = "baseline" if config.method == "baseline" else "dhm"
    described = {name: config.to_dict()[name] for name in NETWORK} | {"method": branched}
    return _training_flops(json.dumps(described), image_size or config.image_size or 32)


@functools.cache
def _training_flops(network: str, image_size: int | tuple[int, int]) -> int:
    with torch.device("meta"):
        net = network_of(Config.from_dict(json.loads(network))).eval()
    with Counter() as counter:
        net.all_logits(blank(net, image_size))
    return counter.training


class Counter(TorchFunctionMode):
    """Multiply-adds of convolutions and linear layers as they are called, which is all there is in the networks here.

    torch's counter, which watches the backward pass too, takes the weights' gradient of a grouped convolution for that
    of a full one: for MobileNet 3.5 times too many.

    Attributes:
        forward: of the calls.
        training: likewise, and once more for each gradient that is wanted, the input's and the weights'.
    """

    forward = training = 0

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in PASSED_OVER:
            return args[0]
        answer = func(*args, **(kwargs or {}))
        if func in (torch.conv2d, F.linear):
            images, weight = args[:2]
            work = answer.numel() * weight[0].numel()
            self.forward += work
            self.training += work * (1 + images.requires_grad + weight.requires_grad)
        return answer


def at_equal_flops(config: Config) -> Config:
    """The plain network for as many epochs as cost the training FLOPs of a configuration, to the nearest epoch.

    The learning rate falls at the same shares of the training, see `Config.lasting`.
    """
    neutral = {name: getattr(Config(), name) for name in MIMICKING}
    plain = config.replace(**{**neutral, "method": "baseline"})
    longer = training_flops(config) / training_flops(plain)
    return plain.lasting(round(config.epochs * longer))
