"""A training program in the manner of torchvision's references/classification/train.py: what the patch of
docs/integrations.md is tried on. The lines that the patch names are those of that script."""

from types import SimpleNamespace

import torch
import torch.utils.data
import torchvision
from torch import nn
from torch.optim.swa_utils import AveragedModel

utils = SimpleNamespace(
    accuracy=lambda output, target, topk: [
        (output.topk(min(k, output.shape[1]))[1] == target[:, None]).any(1).float().mean() * 100 for k in topk
    ]
)


def train_one_epoch(model, criterion, optimizer, loader, average):
    model.train()
    for image, target in loader:
        output = model(image)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update_parameters(model)

        acc1, acc5 = utils.accuracy(output, target, topk=(1, 5))
        batch_size = image.shape[0]
        assert 0 <= acc1 <= acc5 <= 100
        assert batch_size == len(target)


def evaluate(model, criterion, loader):
    model.eval()
    with torch.inference_mode():
        for image, target in loader:
            output = model(image)
            assert criterion(output, target) >= 0
            acc1, acc5 = utils.accuracy(output, target, topk=(1, 5))
            assert acc1 <= acc5


def train(model, loader, lr, epochs, label_smoothing=0.0, norm_weight_decay=None):
    args = SimpleNamespace(label_smoothing=label_smoothing)
    device = torch.device("cpu")
    model.to(device)

    torch.backends.cudnn.benchmark = False

    criterion = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)

    if norm_weight_decay is None:
        parameters = model.parameters()
    else:
        split = torchvision.ops._utils.split_normalization_params(model)
        parameters = [{"params": p, "weight_decay": w} for p, w in zip(split, (norm_weight_decay, 0.0), strict=True)]
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9)
    average = AveragedModel(model, use_buffers=True)
    for _ in range(epochs):
        train_one_epoch(model, criterion, optimizer, loader, average)
        evaluate(model, criterion, loader)
        evaluate(average, criterion, loader)
    return model
