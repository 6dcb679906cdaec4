"""A training program in the manner of timm's train.py, made of timm's parts: what the patch of docs/integrations.md is
tried on. The lines that the patch names are those of that script."""

from argparse import Namespace

import torch
import torch.nn as nn
from timm import utils
from timm.data import resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2


def train(model, loader, lr, epochs, output=None, smoothing=0.0, layer_decay=None):
    """Trains the network and, given a folder, leaves timm's checkpoint files there."""
    args = Namespace(rank=0, smoothing=smoothing, model="own")
    device = torch.device("cpu")
    data_config = resolve_data_config(vars(args), model=model, verbose=utils.is_primary(args))

    assert len(data_config["input_size"]) == 3
    optimizer = create_optimizer_v2(model, opt="momentum", lr=lr, weight_decay=0, layer_decay=layer_decay)
    model_ema = utils.ModelEmaV3(model, decay=0.9)
    if args.smoothing:  # noqa: SIM108
        train_loss_fn = LabelSmoothingCrossEntropy(smoothing=args.smoothing)
    else:
        train_loss_fn = nn.CrossEntropyLoss()
    train_loss_fn = train_loss_fn.to(device=device)
    validate_loss_fn = nn.CrossEntropyLoss().to(device=device)
    saver = output and utils.CheckpointSaver(
        model, optimizer, args, model_ema, checkpoint_dir=output, recovery_dir=output, decreasing=True
    )
    for epoch in range(epochs):
        model.train()
        for input, target in loader:
            loss = train_loss_fn(model(input), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            model_ema.update(model)
        if saver:
            saver.save_checkpoint(epoch, metric=validate(model, loader, validate_loss_fn))
    return model


def validate(model, loader, loss_fn):
    """The mean loss, and a mean of the accuracies that only a tensor of logits has."""
    model.eval()
    losses = utils.AverageMeter()
    with torch.no_grad():
        for input, target in loader:
            output = model(input)
            utils.accuracy(output, target, topk=(1,))
            losses.update(loss_fn(output, target).item(), len(target))
    return losses.avg
