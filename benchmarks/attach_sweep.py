"""What `dhm.attach` does with public classification networks: what works, what is refused in a sentence, what fails.

    python benchmarks/attach_sweep.py sweep.jsonl            # all networks, as they are
    python benchmarks/attach_sweep.py sweep.jsonl --variants # those that worked, pruned, compiled, under DDP, ...
    python benchmarks/attach_sweep.py sweep.jsonl --table    # counts of what the file holds

Networks of timm and torchvision up to 60 million parameters, with weights drawn at random, at the smallest size they
take, two images a batch. A run goes on where the file ends. Nothing is downloaded.
"""

import argparse
import collections
import copy
import json
import re
import signal
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

import dhm
from dhm.attach.plain_weights import copied_values
from dhm.onednn import endangered

MOST_PARAMETERS, SECONDS, CLASSES, BATCH, SIZES = 60e6, 60, 10, 2, (64, 96, 128, 224, 256)
SMALL = [
    *(
        "test_",
        "atto",
        "femto",
        "pico",
        "nano",
        "xxs",
        "xx_small",
        "tiny",
        "xs",
        "_s0",
        "035",
        "040",
        "050",
        "18",
        "19",
    ),
    *("b0", "m0", "c0", "_0", "small", "lite", "26", "mini", "_s"),
]
"""Parts of the names of a family's small members, the smallest first."""
WITHOUT_STAGES = {
    *("beit", "cait", "convit", "crossvit", "deepseek_vit", "deit", "eva", "gemma4_vit", "mlp_mixer", "naflexvit"),
    *("qwen3_vit", "tnt", "vision_transformer", "vision_transformer_relpos", "vision_transformer_sam", "xcit"),
}
"""Modules of timm whose networks cut the image into patches by a single convolution and keep one resolution."""

Check = dict[str, Any]


class Unasked(Exception):
    """The network itself does not stand the change."""


class Slow(BaseException):
    """A network took too long; no `except Exception` on the way may catch it."""


def networks(each: int) -> dict[str, list[tuple[str, Callable[[], nn.Module]]]]:
    """Small networks of every module of timm and torchvision, by family."""

    def size(name: str) -> tuple[int, str]:
        return next((place for place, part in enumerate(SMALL) if part in name), len(SMALL)), name

    found: dict[str, list[tuple[str, Callable[[], nn.Module]]]] = {}
    for family in sorted(set(timm.list_modules()) - WITHOUT_STAGES):
        for name in sorted(timm.list_models(module=family), key=size)[:each]:
            make = lambda name=name: timm.create_model(name, num_classes=CLASSES)  # noqa: E731
            found.setdefault(f"timm/{family}", []).append((f"timm/{name}", make))
    for name in torchvision.models.list_models(module=torchvision.models):
        if name.endswith(("_16gf", "_32gf", "_128gf")):  # too large, and they cannot be built as shapes alone
            continue
        make = lambda name=name: _torchvision(name)  # noqa: E731
        family = re.match("[a-z]+", name).group()  # type: ignore[union-attr]
        found.setdefault(f"torchvision/{family}", []).append((f"torchvision/{name}", make))
    return found


def _torchvision(name: str) -> nn.Module:
    options = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return torchvision.models.get_model(name, num_classes=CLASSES, **options)


def images(size: int) -> torch.Tensor:
    return torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(0))


TARGET = torch.arange(BATCH) % CLASSES


def smallest_size(net: nn.Module) -> int:
    """Pixels of a side at which the plain network runs in training mode."""
    for size in SIZES:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                copy.deepcopy(net).train()(images(size))
            return size
        except Exception as error:
            last = error
    raise last


def trains(net: nn.Module, size: int, call: Callable[..., Any] | None = None) -> None:
    """One training step: every parameter of every branch gets a gradient, and so does the trunk from every branch."""
    returned: dict[str, torch.Tensor] = {}
    hooks = [
        branch.register_forward_pre_hook(
            lambda module, given, name=name: given[0].requires_grad
            and given[0].register_hook(lambda gradient: returned.__setitem__(name, gradient)) and None
        )
        for name, branch in net.branches.items() if call is None
    ]  # fmt: skip
    torch.manual_seed(0)
    logits = (net.train() if call is None else call)(images(size).requires_grad_())
    dhm.DHMLoss()(logits, TARGET)[0].backward()
    for name, branch in net.branches.items():
        lacking = [key for key, p in branch.named_parameters() if p.grad is None]
        assert not lacking, f"{name}: no gradient reaches {lacking[:3]}"
        assert all(p.grad.isfinite().all() for p in branch.parameters()), f"{name}: gradients are not finite"
        assert any(p.grad.any() for p in branch.parameters()), f"{name}: gradients are zero"
        if hooks:
            assert name in returned, f"{name}: no gradient passes its root"
            assert returned[name].isfinite().all(), f"{name}: the gradient at its root is not finite"
            zero = not logits["B0"].any()  # a classifier of zeros sends nothing back in its first step
            assert zero or returned[name].any(), f"{name}: the gradient at its root is zero"
    for hook in hooks:
        hook.remove()
    torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 1e-3).step()


def as_it_is(net: nn.Module, size: int) -> None:
    """Attach; eval answers are the plain network's; a step; the state dict fits the plain network."""
    plain = copy.deepcopy(net, copied_values(net))
    grown = dhm.attach(net, image_size=size, seed=0)
    with torch.no_grad():
        answers = grown.eval()(images(size)), plain.eval()(images(size))
    assert same_bits(*answers), "answers another thing in eval mode"
    trains(grown, size)
    with torch.no_grad():
        plain.load_state_dict(grown.main_only().state_dict())
        answers = grown.eval()(images(size)), plain.eval()(images(size))
    assert same_bits(*answers), "the state dict does not give the plain network"


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Nan for nan, since some networks do not stand a step on two images."""
    return torch.equal(a.view(torch.int32), b.view(torch.int32))


def layers(net: nn.Module) -> Iterator[nn.Module]:
    return (part for part in net.modules() if type(part) is nn.Conv2d and part.weight.flatten(1).any(1).all())


def made_weights(change: Callable[[nn.Module], Any]) -> Callable[[nn.Module, int], None]:
    def run(net: nn.Module, size: int) -> None:
        for layer in list(layers(net)):
            change(layer)
        as_it_is(net, size)

    return run


def after_a_compiled_baseline(net: nn.Module, size: int) -> None:
    torch._dynamo.reset()
    baseline = torch.compile(copy.deepcopy(net).train(), backend="eager")
    nn.functional.cross_entropy(baseline(images(size)), TARGET).backward()
    grown = dhm.attach(net, image_size=size, seed=0).train()
    plain = copy.deepcopy(grown)
    compiled = torch.compile(grown, backend="eager")
    results = []
    for call in (plain, compiled):
        torch.manual_seed(0)
        results.append(call(images(size)))
    for name, z in results[0].items():
        assert torch.allclose(z, results[1][name], rtol=1e-4, atol=1e-5), f"{name} answers another thing compiled"
    trains(grown, size, call=compiled)


class Recomputed(nn.Module):
    reentrant = False

    def forward(self, *args: Any) -> Any:
        return checkpoint(super().forward, *args, use_reentrant=self.reentrant)


def recomputed(reentrant: bool) -> Callable[[nn.Module, int], None]:
    def run(net: nn.Module, size: int) -> None:
        root = dhm.attach(copy.deepcopy(net), image_size=size).roots["B1"]
        stage = net.get_submodule(root)
        stage.__class__ = type(type(stage).__name__, (Recomputed, type(stage)), {"reentrant": reentrant})
        try:
            copy.deepcopy(net).train()(images(size).requires_grad_()).sum().backward()
        except RuntimeError as error:  # a stage that is a single activation in place
            raise Unasked(f"the plain network does not train so: {error}") from None
        trains(dhm.attach(net, image_size=size, seed=0), size)

    return run


def frozen_stem(net: nn.Module, size: int) -> None:
    first = list(net.parameters())
    for parameter in first[: len(first) // 3]:
        parameter.requires_grad_(False)
    as_it_is(net, size)
    assert all(p.grad is None for p in first[: len(first) // 3])


def under_ddp(net: nn.Module, size: int) -> None:
    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", init_method=f"file://{tempfile.mktemp()}", rank=0, world_size=1)
    plain = nn.parallel.DistributedDataParallel(copy.deepcopy(net).train())
    try:
        for _ in range(2):
            nn.functional.cross_entropy(plain(images(size)), TARGET).backward()
    except RuntimeError:
        raise dhm.InputError("DDP refuses the plain network") from None
    grown = dhm.attach(net, image_size=size, seed=0).train()
    wrapped = nn.parallel.DistributedDataParallel(grown)
    for _ in range(2):
        trains(grown, size, call=wrapped)


VARIANTS: dict[str, Callable[[nn.Module, int], None]] = {
    "pruned": made_weights(lambda layer: prune.l1_unstructured(layer, "weight", amount=0.3)),
    "pruned by channel": made_weights(lambda layer: prune.ln_structured(layer, "weight", 0.3, n=2, dim=0)),
    "weight_norm, a hook": made_weights(torch.nn.utils.weight_norm),
    "weight_norm, a parametrization": made_weights(parametrizations.weight_norm),
    "spectral_norm, a parametrization": made_weights(parametrizations.spectral_norm),
    "compiled after the plain network": after_a_compiled_baseline,
    "checkpointing": recomputed(False),
    "checkpointing, reentrant": recomputed(True),
    "frozen stem": frozen_stem,
    "DDP": under_ddp,
}


def check(make: Callable[[], nn.Module], run: Callable[[nn.Module, int], None], record: Check) -> Check:
    """Whether a network works, is refused, fails, or cannot be asked."""
    start = time.process_time()
    signal.signal(signal.SIGPROF, _too_slow)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        if "size" not in record:
            with torch.device("meta" if "regnet" not in record["name"] else "cpu"):
                large = sum(p.numel() for p in make().parameters()) > MOST_PARAMETERS
            if large:
                return {**record, "outcome": "left out", "why": "too large"}
        torch.manual_seed(0)
        net = make()
        record["endangered"] = [name for name, part in net.named_modules() if endangered(part)]
        try:
            record["size"] = record.get("size") or smallest_size(net)
        except Exception as error:
            return {**record, "outcome": "left out", "why": f"the plain network does not train: {error}"[:200]}
        run(net, record["size"])
        record["outcome"] = "works"
    except Unasked as error:
        record |= {"outcome": "left out", "why": str(error)[:200]}
    except dhm.InputError as error:
        record |= {"outcome": "refused", "why": str(error)}
    except Slow:
        record |= {"outcome": "left out", "why": f"more than {SECONDS} s of a processor"}
    except Exception as error:
        record |= {"outcome": "fails", "why": f"{type(error).__name__}: {error}"[:400]}
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return {**record, "seconds": round(time.process_time() - start, 1)}


def _too_slow(*args: Any) -> None:
    raise Slow


def table(records: list[Check]) -> str:
    """Counts by variant and outcome, and the sentences behind what did not work."""
    outcomes = ("works", "refused", "fails", "left out")
    count = collections.Counter((r["variant"], r["outcome"]) for r in records)
    lines = ["| | " + " | ".join(outcomes) + " |", "|---|" + "---:|" * len(outcomes)]
    for variant in dict.fromkeys(r["variant"] for r in records):
        lines.append(f"| {variant} | " + " | ".join(str(count[variant, outcome]) for outcome in outcomes) + " |")
    lines += [f"{r['variant']}, {r['name']}: {r['outcome']}: {r['why']}" for r in records if r["outcome"] != "works"]
    lines += [f"endangered: {r['name']} {r['endangered']}" for r in records if r.get("endangered")]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--variants", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--each", type=int, default=2, help="networks of a module of timm")
    parser.add_argument("--within", type=float, default=6.0, help="seconds a network may have taken, for --variants")
    parser.add_argument("--only", default="", help="a regular expression on variant and network")
    options = parser.parse_args()
    records = [json.loads(line) for line in options.file.read_text().splitlines()] if options.file.exists() else []
    if options.table:
        print(table(records))
        return
    done = {(r["variant"], r["name"]) for r in records}
    plain = [r for r in records if r["outcome"] == "works" and r["variant"] == "as it is"]
    works = {r["name"]: r["seconds"] for r in plain if r["seconds"] <= options.within}
    known = {r["name"]: {"size": r["size"]} for r in plain}
    families = networks(options.each)
    order = [(family, *member) for family, members in families.items() for member in members]
    if options.variants:  # one of every family, then the next of each, the fastest first
        order = [member for member in order if member[1] in works]
        order.sort(key=lambda member: works[member[1]])
        nth = collections.Counter[str]()
        place = {name: nth.update([family]) or nth[family] for family, name, _ in order}
        order.sort(key=lambda member: place[member[1]])
    warnings.simplefilter("ignore")
    for family, name, make in order:
        for variant, run in (VARIANTS if options.variants else {"as it is": as_it_is}).items():
            if (variant, name) in done or not re.search(options.only, f"{variant}: {name}"):
                continue
            record = check(make, run, {"variant": variant, "family": family, "name": name, **known.get(name, {})})
            with options.file.open("a") as file:
                print(json.dumps(record), file=file)
            print(variant, name, record["outcome"], record.get("seconds", ""), record.get("why", ""), flush=True)


if __name__ == "__main__":
    main()
