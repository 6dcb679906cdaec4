"""A network of three convolutions, for tests of what is done with one's own networks; four images, their classes."""

import torch
from torch import nn

IMAGES, TARGET = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.arange(4)


class Net(nn.Module):
    """Three convolutions, each at a resolution of its own; what is special about a network comes in a subclass."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)
        self.fc = nn.Linear(32, classes)

    def before(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x).relu()

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(x).relu()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.c(self.middle(self.before(x))).relu().mean((2, 3)))
