"""Backbones, each a `Blueprint` that builds a `StagedNet`. They know nothing of branches."""

from dhm.models.cifar_resnet import CifarResNet
from dhm.models.densenet import DenseNet
from dhm.models.imagenet_resnet import ImageNetResNet
from dhm.models.mobilenet import MobileNet
from dhm.models.staged import Blueprint, StagedNet
from dhm.models.wide_resnet import WideResNet

__all__ = ["Blueprint", "CifarResNet", "DenseNet", "ImageNetResNet", "MobileNet", "StagedNet", "WideResNet"]
