"""The programs of docs/integrations.md, read from that page, before and after the change, against a loop by hand."""

import contextlib
import difflib
import functools
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

TITLES = [
    integrations.OWN,
    integrations.STALLED,
    "DistributedDataParallel",
    "accelerate",
    "Lightning",
    *integrations.PATCHED,
]
IMAGES = TensorDataset(torch.randn(64, 3, 16, 16, generator=torch.Generator().manual_seed(1)), torch.arange(64) % 10)
RATE, EPOCHS = 0.005, 2


def see_installed(title: str) -> None:
    pytest.importorskip(integrations.NEEDS.get(title, "torch"))


def plain() -> nn.Module:
    """It has no statistics of a batch, so that means over halves of one have the mean of the whole."""
    torch.manual_seed(0)
    return Net()


@functools.cache
def by_hand(branched: bool, growing: bool = False) -> dict[str, torch.Tensor]:
    """The network's weights after the same training, by torch's functions: Eqs. 7-9, or B0's cross-entropy alone.

    Args:
        growing: mimicking has an N-th of its weight in the first of N steps of an epoch, two in the second, then all.
    """
    net = plain()
    torch.manual_seed(0)
    model = dhm.attach(net) if branched else net
    parts = [(parameter, torch.zeros_like(parameter)) for parameter in model.parameters()]
    batches = list(zip(*(t.split(integrations.BATCH) for t in IMAGES.tensors), strict=True))
    for epoch in range(EPOCHS):
        for step, (images, labels) in enumerate(batches, start=1):
            scale = step / len(batches) if growing and epoch == 0 else 1.0
            answer = model.train()(images)
            logits = list(answer.values()) if branched else [answer]
            loss = sum(F.cross_entropy(z, labels) for z in logits)
            for i, student in enumerate(logits):
                for teacher in logits[:i] + logits[i + 1 :]:
                    known = teacher.detach().log_softmax(1)
                    loss += scale * F.kl_div(student.log_softmax(1), known, reduction="batchmean", log_target=True)
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
        torch.testing.assert_close(got[name], tensor, rtol=1e-4, atol=1e-6, msg=name)


def test_every_program_of_the_page_is_run_and_its_changed_lines_are_those_it_tells() -> None:
    found = integrations.recipes()
    assert list(found) == TITLES
    told = re.findall(r"^\| \[.+\]\(#(\S+)\) \| (\d+) \|$", integrations.PAGE.read_text(), re.MULTILINE)
    anchors = [re.sub(r"[^a-z -]", "", title.lower()).replace(" ", "-") for title in found]
    assert [(anchor, int(lines)) for anchor, lines in told] == list(
        zip(anchors, (recipe.changed for recipe in found.values()), strict=True)
    )
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
@pytest.mark.parametrize("changed", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("title", [title for title in TITLES if title != "DistributedDataParallel"])
def test_a_program_trains_as_by_hand(title: str, changed: bool) -> None:
    see_installed(title)
    got = integrations.trained(title, changed, plain(), IMAGES, RATE, EPOCHS, shuffle=False)
    stalled = title == integrations.STALLED  # where DHM is what there was before
    assert_same(weights(got), by_hand(changed or stalled, growing=changed and stalled))
    assert isinstance(got, dhm.AttachedNet) == (changed or stalled)


def test_trainings_by_hand_differ_by_more_than_is_passed_over() -> None:
    for one, other in ((by_hand(False), by_hand(True)), (by_hand(True), by_hand(True, growing=True))):
        with pytest.raises(AssertionError):
            assert_same(one, other)


WORKER = """
import sys, torch, integrations
from test_integrations import EPOCHS, IMAGES, RATE, weights, plain
for branched in (False, True):
    got = integrations.trained(sys.argv[1], branched, plain(), IMAGES, RATE, EPOCHS, shuffle=False)
    torch.save(weights(got), f"{sys.argv[2]}-{branched}-{torch.distributed.get_rank()}")
torch.distributed.destroy_process_group()
"""


@pytest.mark.parametrize("title", integrations.PARALLEL)
def test_two_processes_train_as_one_does_on_the_whole_batch(title: str, tmp_path: Path) -> None:
    see_installed(title)
    here = Path(__file__).parent
    script = tmp_path / "worker.py"
    script.write_text(f"import sys\nsys.path[:0] = {[str(BENCHMARKS), str(here), str(here.parent)]}\n{WORKER}")
    integrations.side_by_side([sys.executable, str(script), title, str(tmp_path / "weights")], limit=600)
    for branched in (False, True):
        for rank in (0, 1):
            assert_same(torch.load(tmp_path / f"weights-{branched}-{rank}"), by_hand(branched))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("pretrained", [False, True])
def test_lightning_leaves_a_network_in_eval_mode_and_the_first_step_says_so(pretrained: bool) -> None:
    see_installed("Lightning")
    net = plain().train(not pretrained)
    with pytest.raises(dhm.InputError, match=r"call net\.train\(\)") if pretrained else contextlib.nullcontext():
        integrations.trained("Lightning", True, net, IMAGES, RATE, 1, max_steps=1)


def test_timm_settings_and_files_after_its_patch(tmp_path: Path) -> None:
    """Smoothing and layer decay by timm's own parts; the file it leaves is the plain network's once more."""
    timm = pytest.importorskip("timm")
    net = timm.create_model("test_resnet", num_classes=10)
    settings = {"output": str(tmp_path), "smoothing": 0.1, "layer_decay": 0.7}
    got = integrations.trained("timm's `train.py`", True, net, IMAGES, RATE, 1, **settings)
    again = timm.create_model("test_resnet", num_classes=10)
    again.load_state_dict(dhm.plain_state(tmp_path / "model_best.pth.tar"))
    images = IMAGES.tensors[0]
    assert torch.equal(again.eval()(images), got.eval()(images))


@pytest.mark.parametrize("name", ["LabelSmoothingCrossEntropy", "SoftTargetCrossEntropy", "BinaryCrossEntropy"])
def test_losses_of_timm_script_keep_their_place(name: str) -> None:
    """The patch's criterion, with what mixup makes of labels where the loss takes that."""
    criterion = getattr(pytest.importorskip("timm.loss"), name)()
    line = re.search(r"^\+ +train_loss_fn = (.*)$", integrations.recipes()["timm's `train.py`"].block, re.MULTILINE)[1]
    loss = eval(line, {"dhm": dhm, "train_loss_fn": criterion, "device": "cpu"})
    images, labels = IMAGES.tensors
    mixed = (F.one_hot(labels, 10) + F.one_hot(labels.flip(0), 10)) / 2
    target = labels if name.startswith("Label") else mixed
    logits = dhm.attach(plain())(images)
    loss(logits, target).backward()
    for head, z in logits.items():
        torch.testing.assert_close(loss.terms[f"ce/{head}"], criterion(z, target).detach())


def test_timm_task_takes_both_as_the_page_says() -> None:
    timm = pytest.importorskip("timm")
    task = pytest.importorskip("timm.task")
    line = re.search(r"`(ClassificationTask\(.+\))`", integrations.PAGE.read_text())[1]
    made = eval(line, {"dhm": dhm, "ClassificationTask": task.ClassificationTask, "model": plain()})
    images, labels = IMAGES.tensors
    result = made(images, labels)
    assert torch.equal(result["loss"], dhm.DHMLoss()(result["output"], labels)[0])
    assert result["output"].keys() == {"B0", "B1", "B2"}
    made.setup_ema(decay=0.5)
    result["loss"].backward()
    assert made.get_eval_model(ema=True) is not None
    assert timm.utils.unwrap_model(made.get_eval_model()) is made.trainable_module


def test_torchvision_settings_after_its_patch() -> None:
    title = "torchvision's `references/classification/train.py`"
    settings = {"label_smoothing": 0.1, "norm_weight_decay": 0.0}
    got = integrations.trained(title, True, integrations.network(0, classes=10), IMAGES, RATE, 1, **settings)
    assert sorted(got.branches) == ["B1", "B2"]
    assert all(part.num_batches_tracked == 2 for part in got.modules() if isinstance(part, nn.BatchNorm2d))
