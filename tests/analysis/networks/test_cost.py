"""What is measured for the costs of full runs, and that it stands for them."""

import pytest

from dhm import flops
from dhm.analysis.networks import cost
from dhm.config import Config
from dhm.paper import recipes
from dhm.training.estimate import Estimate


@pytest.mark.parametrize(
    ("arch", "preset", "options", "measured"),
    [
        ("resnet32", "quick", {}, ("fashion-mnist-mini", 32, 32, 2)),
        ("resnet32", "smoke", {}, ("fashion-mnist-mini", 32, 4, 1)),
        ("resnet18", "paper", {"precision": "bf16-mixed"}, ("fashion-mnist-mini", 224, 256, 5)),
        ("resnet18", "quick", {}, ("fashion-mnist-mini", 224, 8, 2)),
        ("resnet50", "quick", {"dataset": "market1501"}, ("pedestrians", 256, 8, 2)),
        ("mobilenet_v1", "smoke", {}, ("pedestrians", 32, 4, 1)),
    ],
)
def test_a_step_of_the_papers_network_is_measured(
    arch: str, preset: str, options: dict, measured: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On embedded images of the paper's size, smaller only where a page has to be quick; the pace is that of a machine
    which takes so long for a multiply-add."""
    seen: list[Config] = []

    def estimate(config: Config, steps: int, accelerator: str, tests: bool) -> Estimate:
        assert not tests
        seen.append(config)
        assert (config.dataset, config.image_size, config.batch_size, steps) == measured
        size = (config.image_size, config.image_size // 2) if config.dataset == "pedestrians" else config.image_size
        return Estimate(1e-11 * config.batch_size * flops.training_flops(config, size), 0.0, 1, 1.0, 0, 1)

    monkeypatch.setattr(cost, "estimate", estimate)
    told, pace = cost.measure(arch, preset, "cpu", **options)
    (config,) = seen
    assert (config.arch, config.method, config.weights, config.frozen_epochs) == (arch, "dhm", "", 0)
    assert config.precision == options.get("precision", "32-true")
    assert pace == pytest.approx(1e-11)
    assert told.startswith(f"{arch} under DHM: ")
    pixels = "x".join(map(str, (measured[1], measured[1] // (2 if measured[0] == "pedestrians" else 1))))
    assert told.endswith(f"ms a step of {measured[2]} images of {pixels} pixels")


def test_several_data_sets_have_a_row_each() -> None:
    runs = recipes.table3("paper", ["mobilenet_v1"], methods=["dhm"])
    table = cost.table(runs, 1e-11)
    assert list(table.index) == ["mobilenet_v1 on market1501", "mobilenet_v1 on dukemtmc-reid"]
    hours = [cost.hours(run, 1e-11) for run in runs]
    assert hours[1] / hours[0] == pytest.approx(16_522 / 12_936)
    assert table["DHM"].tolist() == [f"{value:.1f}" for value in hours]
