"""What a training is prepared with."""

import inspect

from conftest import small_config

import dhm
from dhm.training.parallel import connect
from dhm.training.step import prepare

UNUSUAL = {
    "method": "dsl", "direction": "top_down", "temperature": 3.0, "ce_weights": {"B1": 0.5},
    "mimic_weights": {"B0<-B1": 2.0}, "label_smoothing": 0.1,
}  # fmt: skip
"""A value for every argument of the loss that is not its default; those by keyword alone are for other programs."""


def test_every_argument_of_the_loss_is_a_setting_and_reaches_it() -> None:
    every = inspect.signature(dhm.DHMLoss).parameters
    arguments = {name: argument for name, argument in every.items() if argument.kind is not argument.KEYWORD_ONLY}
    assert {*arguments} == {*UNUSUAL}
    config = small_config(**UNUSUAL)
    loss = prepare(config, connect("cpu", config.precision)).loss
    for name, argument in arguments.items():
        assert getattr(loss, name) == UNUSUAL[name] != argument.default
