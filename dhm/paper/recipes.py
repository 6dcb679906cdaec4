"""What to train: the runs behind each table, section and appendix."""

from collections.abc import Mapping, Sequence
from typing import Any

from dhm.config import METHODS, Config
from dhm.data.reid import PUBLISHED
from dhm.errors import InputError
from dhm.flops import at_equal_flops
from dhm.paper.presets import CIFAR_PAPER, REID_PAPER, SMALL, reid_settings, resolve, settings, shallow
from dhm.zoo import EXTRA_BRANCHES, blueprint, branches_of

TABLE1 = ("resnet32", "resnet110", "resnet1202", "densenet40_12", "densenet100_12", "wrn16_8", "wrn28_10")
TABLE2 = ("resnet18", "resnet50", "resnet101", "resnet152")
TABLE3 = ("resnet50", "mobilenet_v1")
TABLE3_SETS = tuple(PUBLISHED)
TABLE4 = ((), ("B1",), ("B2",), ("B1", "B2"), ("B1", "B2", "B3"))
"""The side branches of each row."""


def table1(
    preset: str = "", architectures: Sequence[str] = (), methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (), **changes: Any,
) -> list[Config]:  # fmt: skip
    """The runs of Table 1 (CIFAR-100), all methods of a seed before the next seed.

    Args:
        architectures: names of networks; by default the table's seven, or with the quick and smoke presets one
            small member of each family.
        seeds: by default 0 to 4 as in the paper; 0 and 1 with quick, 0 with smoke.
        **changes: fields of `Config` that replace the preset's.
    """
    preset = resolve(preset)
    small = preset in SMALL
    architectures = architectures or (tuple(CIFAR_PAPER) if small else TABLE1)
    seeds = seeds or _usual_seeds(preset)
    networks = [{"experiment": "table1", **settings(preset, arch), **changes} for arch in architectures]
    return grid(networks, methods, seeds)


def after_epochs(configs: Sequence[Config], epochs: Sequence[int]) -> list[Config]:
    """Runs cut short after each of some epochs, and whole: order, augmentation and learning rate depend on the position
    alone, so these are states of one training. The baseline, which trains no branches, is only trained to its end.

    Raises:
        InputError: an epoch that lies not within the training.
    """
    runs = []
    for config in configs:
        if any(not 1 <= epoch <= config.epochs for epoch in epochs):
            raise InputError(f"epochs must lie between 1 and {config.epochs}, not {list(epochs)}")
        early = sorted({*epochs} - {config.epochs}) if config.method != "baseline" else []
        runs += [config.replace(epochs=epoch, experiment="gradient-consistency") for epoch in early]
        runs.append(config)
    return runs


def grid(networks: Sequence[dict[str, Any]], methods: Sequence[str], seeds: Sequence[int]) -> list[Config]:
    """Runs of every network with every method and seed, all methods of a seed before the next seed."""
    return [
        Config.from_dict({**network, "method": method, "seed": seed})
        for network in networks
        for seed in seeds
        for method in methods
    ]


def table2(
    preset: str = "", architectures: Sequence[str] = (), methods: Sequence[str] = METHODS, seeds: Sequence[int] = (0,),
    controls: bool = True, **changes: Any,
) -> list[Config]:  # fmt: skip
    """The runs of Table 2 (ImageNet). The paper prints single runs, hence one seed.

    Args:
        architectures: names of networks; by default the table's four, or one small member with quick and smoke.
        controls: for shallow networks also baseline and DSL without scale augmentation, which the table compares with
            DHM without it.
        **changes: fields of `Config` that replace the preset's.
    """
    small = resolve(preset) in SMALL
    runs = []
    for arch in architectures or (("imagenet_resnet",) if small else TABLE2):
        variants = [{"method": method} for method in methods]
        if controls and shallow(settings(preset, arch)):
            variants += [_control(variant) for variant in variants]
        runs += _variants(preset, arch, variants, seeds, changes)
    return runs


def table3(
    preset: str = "", architectures: Sequence[str] = (), datasets: Sequence[str] = (), methods: Sequence[str] = METHODS,
    seeds: Sequence[int] = (0,), **changes: Any,
) -> list[Config]:  # fmt: skip
    """The runs of Table 3 (person re-identification). The paper prints single runs, hence one seed.

    Args:
        architectures: names of networks; by default the table's two, or a small member of each with quick and smoke.
        datasets: by default the table's two, or the drawn pedestrians with quick and smoke.
        **changes: fields of `Config` that replace the preset's.
    """
    small = resolve(preset) in SMALL
    networks = [
        {"experiment": "table3", **reid_settings(preset, arch, dataset), **changes}
        for dataset in datasets or (("pedestrians",) if small else TABLE3_SETS)
        for arch in architectures or (tuple(REID_PAPER) if small else TABLE3)
    ]
    return grid(networks, methods, seeds)


def table4(preset: str = "", arch: str = "", seeds: Sequence[int] = (0,), **changes: Any) -> list[Config]:
    """The runs of Table 4: DHM with the side branches of each row of `TABLE4`; without any it is the baseline, also
    shown without scale augmentation, as the others are trained."""
    arch = arch or _member(preset, "imagenet_resnet", "resnet18")
    variants = [{"method": "dhm", "branches": pick(preset, arch, names)} for names in TABLE4 if names]
    return _variants(preset, arch, [*_controlled({"method": "baseline"}), *variants], seeds, changes)


def table5(preset: str = "", arch: str = "", seeds: Sequence[int] = (0,), **changes: Any) -> list[Config]:
    """The runs of Table 5: every branch isolated, with and without scale augmentation, and all trained by DHM."""
    arch = arch or _member(preset, "imagenet_resnet", "resnet18")
    alone = [run for name in ("B0", "B1", "B2") for run in _controlled({"method": "baseline", "isolated": name})]
    return _variants(preset, arch, [*alone, {"method": "dhm"}], seeds, changes)


def directions(preset: str = "", arch: str = "", seeds: Sequence[int] = (0,), **changes: Any) -> list[Config]:
    """The runs of section 4.3.1: mimicking in one direction and in both, against baseline and DSL."""
    arch = arch or _member(preset, "imagenet_resnet", "resnet18")
    without = [run for method in ("baseline", "dsl") for run in _controlled({"method": method})]
    mimicking = [{"method": "dhm", "direction": way} for way in ("top_down", "bottom_up", "both")]
    return _variants(preset, arch, [*without, *mimicking], seeds, changes)


def branch_design(
    preset: str = "",
    arch: str = "",
    methods: Sequence[str] = ("dsl", "dhm"),
    seeds: Sequence[int] = (0,),
    **changes: Any,
) -> list[Config]:
    """The runs behind section 3.1: bare classifiers directly on the layers against the designed branches, and the
    baseline with and without scale augmentation."""
    arch = arch or _member(preset, "imagenet_resnet", "resnet18")
    bare = [{**branch, "depths": [], "width": 1.0} for branch in _branches(preset, arch, ("B1", "B2"))]
    designs = [{"method": method, "branches": kind} for method in methods for kind in ("paper", bare)]
    return _variants(preset, arch, [*_controlled({"method": "baseline"}), *designs], seeds, changes)


def appendix_d(
    preset: str = "", probabilities: Sequence[float] = (0.5,), seeds: Sequence[int] = (), arch: str = "", **changes: Any
) -> list[Config]:
    """The runs of appendix D: DHM whose branches are drawn anew at every epoch for mimicking, with each of the
    probabilities, and the network's runs of Table 1. Seeds as in `table1`.

    Raises:
        InputError: no probability is below 1, so nothing is drawn.
    """
    if not any(probability < 1 for probability in probabilities):
        raise InputError(f"probabilities must hold one below 1, not {list(probabilities)}")
    arch = arch or _member(preset, "cifar_resnet", "resnet32")
    drawn = [{"method": "dhm", "mimic_probability": probability} for probability in probabilities]
    return _beside_table1("appendix_d", preset, arch, [*({"method": m} for m in METHODS), *drawn], seeds, changes)


def appendix_e(
    preset: str = "", ratios: Sequence[float] = (0.0, 0.2, 0.5), exclude_truth: bool = False,
    methods: Sequence[str] = ("baseline", "dhm"), seeds: Sequence[int] = (), arch: str = "", **changes: Any,
) -> list[Config]:  # fmt: skip
    """The runs of appendix E: training labels redrawn in each ratio, over all classes or past the true one; those of
    ratio 0 are runs of Table 1."""
    arch = arch or _member(preset, "wrn", "wrn28_10")
    labels = [{"label_noise": ratio, "label_noise_excludes_truth": exclude_truth and ratio > 0} for ratio in ratios]
    variants = [{"method": method, **noise} for noise in labels for method in methods]
    return _beside_table1("appendix_e", preset, arch, variants, seeds, changes)


def appendix_f(
    preset: str = "", dropout: float = 0.3, methods: Sequence[str] = ("baseline", "dhm"), seeds: Sequence[int] = (),
    arch: str = "", **changes: Any,
) -> list[Config]:  # fmt: skip
    """The runs of appendix F: wide residual networks with dropout, and without, which are runs of Table 1."""
    arch = arch or _member(preset, "wrn", "wrn28_10")
    dropping = {"options": {**settings(preset, arch)["options"], "dropout": dropout}}
    variants = [{"method": method, **options} for options in ({}, dropping) for method in methods]
    return _beside_table1("appendix_f", preset, arch, variants, seeds, changes)


def appendix_g(preset: str = "", seeds: Sequence[int] = (), arch: str = "", **changes: Any) -> list[Config]:
    """The runs behind appendix G's argument: those of Table 1, two networks in mutual learning (`dhm.branches.twin`),
    and the plain network trained for DHM's training FLOPs (`dhm.flops.at_equal_flops`)."""
    arch = arch or _member(preset, "cifar_resnet", "resnet32")
    variants = [*({"method": m} for m in METHODS), {"method": "dhm", "branches": "twin"}]
    runs = []
    for seed in seeds or _usual_seeds(preset):
        one = _beside_table1("appendix_g", preset, arch, variants, [seed], changes)
        runs += [*one, at_equal_flops(one[METHODS.index("dhm")]).replace(experiment="appendix_g")]
    return runs


def _beside_table1(
    experiment: str, preset: str, arch: str, variants: Sequence[Mapping[str, Any]], seeds: Sequence[int],
    changes: Mapping[str, Any],
) -> list[Config]:  # fmt: skip
    """Runs of a CIFAR network, all variants of a seed before the next seed, none twice; those that stand in Table 1
    are its own, so that they are trained once."""
    start = {"experiment": experiment, **settings(preset, arch), **changes}
    runs = [Config.from_dict({**start, **v, "seed": seed}) for seed in seeds or _usual_seeds(preset) for v in variants]
    printed = {run.digest for run in table1(preset, [arch], seeds=seeds, **changes)}
    runs = [run.replace(experiment="table1") if run.digest in printed else run for run in runs]
    return list({run.name: run for run in runs}.values())


def _usual_seeds(preset: str) -> Sequence[int]:
    return {"quick": (0, 1), "smoke": (0,)}.get(resolve(preset), (0, 1, 2, 3, 4))


def _member(preset: str, family: str, of_the_paper: str) -> str:
    """The network of a table's rows or an appendix, or with the small presets its family."""
    return family if resolve(preset) in SMALL else of_the_paper


def pick(preset: str, arch: str, names: Sequence[str]) -> str | list[dict[str, Any]]:
    """The value of `Config.branches` for the branches of these names."""
    return "paper" if tuple(names) == ("B1", "B2") else _branches(preset, arch, names)


def _branches(preset: str, arch: str, names: Sequence[str]) -> list[dict[str, Any]]:
    plan = blueprint(arch, **settings(preset, arch)["options"])
    extra = EXTRA_BRANCHES.get(arch, ())
    specs = {spec.name: spec for spec in (*branches_of(arch, plan, "paper"), *extra)}
    missing = next((name for name in names if name not in specs), None)
    if missing is not None:
        raise InputError(f"{arch} has no branch {missing}; it has {', '.join(specs)}")
    return [specs[name].to_dict() for name in names]


def _control(variant: Mapping[str, Any]) -> dict[str, Any]:
    return {**variant, "augment": "fixed_scale"}


def _controlled(variant: dict[str, Any]) -> list[dict[str, Any]]:
    """A variant with the recipe's scale augmentation and one without it."""
    return [variant, _control(variant)]


def _variants(
    preset: str, arch: str, variants: Sequence[Mapping[str, Any]], seeds: Sequence[int], changes: Mapping[str, Any]
) -> list[Config]:
    """ImageNet runs of a network, all variants of a seed before the next seed, none twice.

    They share one experiment, so that a run which stands in several tables is trained once.
    """
    runs = [
        Config.from_dict(
            {"experiment": "imagenet", **settings(preset, arch, v["method"]), **v, **changes, "seed": seed}
        )
        for seed in seeds
        for v in variants
    ]
    return list({run.name: run for run in runs}.values())
