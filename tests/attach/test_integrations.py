"""The programs of docs/integrations.md, read from that page, before and after the change, against a loop by hand."""

import copy
import difflib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from three_convolutions import Net
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import dhm
from dhm import paths

BENCHMARKS = paths.root() / "benchmarks"
sys.path.append(str(BENCHMARKS))
import integrations  # noqa: E402

TITLES = ["A loop of your own", "DistributedDataParallel", "accelerate", "Lightning", *integrations.PATCHED]
IMAGES = TensorDataset(torch.randn(128, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.arange(128) % 10)
RATE, EPOCHS = 0.05, 2


def see_installed(title: str) -> None:
    package = integrations.NEEDS.get(title, "torch")
    if not importlib.util.find_spec(package):
        pytest.skip(f"{package} is not installed")


def by_hand(net: nn.Module, branched: bool) -> dict[str, torch.Tensor]:
    """The network's weights after the same training, by torch's functions: Eqs. 7-9, or B0's cross-entropy alone."""
    torch.manual_seed(0)
    model = dhm.attach(net) if branched else net
    parts = [(parameter, torch.zeros_like(parameter)) for parameter in model.parameters()]
    for _ in range(EPOCHS):
        for images, labels in zip(*(t.split(integrations.BATCH) for t in IMAGES.tensors), strict=True):
            answer = model.train()(images)
            logits = list(answer.values()) if branched else [answer]
            loss = sum(F.cross_entropy(z, labels) for z in logits)
            for i, student in enumerate(logits):
                for teacher in logits[:i] + logits[i + 1 :]:
                    known = teacher.detach().log_softmax(1)
                    loss += F.kl_div(student.log_softmax(1), known, reduction="batchmean", log_target=True)
            gradients = torch.autograd.grad(loss, [parameter for parameter, _ in parts])
            with torch.no_grad():
                for (parameter, velocity), gradient in zip(parts, gradients, strict=True):
                    parameter -= RATE * velocity.mul_(0.9).add_(gradient)
    return net.state_dict()


def weights(net: nn.Module) -> dict[str, torch.Tensor]:
    return net.main_only().state_dict() if isinstance(net, dhm.AttachedNet) else net.state_dict()


def assert_same(got: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert got.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_every_program_of_the_page_is_run_and_its_changed_lines_are_those_it_tells() -> None:
    found = integrations.recipes()
    assert list(found) == TITLES
    told = re.findall(r"^\| \[(.+)\]\(#\S+\) \| (\d+) \|$", integrations.PAGE.read_text(), re.MULTILINE)
    assert [(title.lower(), int(lines)) for title, lines in told] == [(t.lower(), r.changed) for t, r in found.items()]
    assert max(recipe.changed for recipe in found.values()) <= 5
    for recipe in found.values():
        lines = difflib.unified_diff(recipe.before.splitlines(), recipe.after.splitlines(), n=0)
        assert sum(line.startswith("+") for line in lines) - 1 == recipe.changed  # one names the file
    module = found["Lightning"].after.partition("class ")[2].partition("\n\n\ndef ")[0]
    assert len(module.splitlines()) <= 25


@pytest.mark.parametrize("title", integrations.PATCHED)
def test_patches_apply_with_git(title: str, tmp_path: Path) -> None:
    recipe = integrations.recipes()[title]
    file = tmp_path / re.search(r"^\+\+\+ b/(.*)$", recipe.block, re.MULTILINE)[1]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(recipe.before)
    subprocess.run(["git", "apply", "-"], input=recipe.block, text=True, cwd=tmp_path, check=True)
    assert file.read_text() == recipe.after


@pytest.mark.filterwarnings("ignore")  # Lightning's, of the number of workers
@pytest.mark.parametrize("branched", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("title", [title for title in TITLES if title != "DistributedDataParallel"])
def test_a_program_trains_as_by_hand(title: str, branched: bool) -> None:
    see_installed(title)
    net = integrations.network(0, classes=10)
    expected = by_hand(copy.deepcopy(net), branched)
    got = integrations.trained(title, branched, net, IMAGES, RATE, EPOCHS, shuffle=False)
    assert_same(weights(got), expected)
    assert isinstance(got, dhm.AttachedNet) == branched


WORKER = """
import sys, torch, integrations
from test_integrations import EPOCHS, IMAGES, RATE, Net, weights
for branched in (False, True):
    torch.manual_seed(0)
    got = integrations.trained(sys.argv[1], branched, Net(), IMAGES, RATE, EPOCHS, shuffle=False)
    torch.save(weights(got), f"{sys.argv[2]}-{branched}-{torch.distributed.get_rank()}")
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("title", integrations.PARALLEL)
def test_two_processes_train_as_one_does_on_the_whole_batch(title: str, tmp_path: Path) -> None:
    """The network has no statistics of a batch, so that means over halves of it have the mean of the whole."""
    see_installed(title)
    here = Path(__file__).parent
    script = tmp_path / "worker.py"
    script.write_text(f"import sys\nsys.path[:0] = {[str(BENCHMARKS), str(here), str(here.parent)]}\n{WORKER}")
    integrations.side_by_side([sys.executable, str(script), title, str(tmp_path / "weights")])
    for branched in (False, True):
        torch.manual_seed(0)
        expected = by_hand(Net(), branched)
        for rank in (0, 1):
            assert_same(torch.load(tmp_path / f"weights-{branched}-{rank}"), expected)
