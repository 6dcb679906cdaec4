"""What a run is called in a table: one name for the same training wherever it stands."""

from collections.abc import Sequence

from dhm.config import Config
from dhm.flops import at_equal_flops
from dhm.paper.presets import shallow
from dhm.zoo import family_of

EQUAL = "equal FLOPs"


def variant(run: Config) -> str:
    """The name of what was done to a network.

    It starts with the method, or with "B1 alone" for an isolated branch, and goes on with what departs from the
    recipe: "dhm with B1" (these side branches only), "dhm top-down", "dsl, bare heads" (classifiers directly on the
    layers), "dhm, Bernoulli 0.5" (branches drawn for mimicking at every epoch), "baseline, fixed scale" (scale
    augmentation cancelled, where the recipe has it). DHM of two networks that share nothing is "dml", mutual learning.
    """
    name = f"{run.isolated} alone" if run.isolated != "B0" else run.method
    if run.branches == "twin":
        name = {"dhm": "dml", "dsl": "dsl with twin"}.get(name, name)
    if run.method != "baseline" and not isinstance(run.branches, str):
        bare = all(not branch.get("depths") for branch in run.branches)
        name += ", bare heads" if bare else " with " + " & ".join(branch["name"] for branch in run.branches)
    if run.direction != "both":
        name += " " + run.direction.replace("_", "-")
    if run.method == "dhm" and run.mimic_probability < 1:
        name += f", Bernoulli {run.mimic_probability:g}"
    cancelled = run.method == "dhm" and family_of(run.arch) == "imagenet_resnet" and shallow(run.to_dict())
    if run.augment in ("scale", "fixed_scale") and run.augment != ("fixed_scale" if cancelled else "scale"):
        name += ", fixed scale" if run.augment == "fixed_scale" else ", with scale"
    return name


def names(runs: Sequence[Config]) -> list[str]:
    """The names of runs that stand together: each by `variant`, but "baseline, equal FLOPs" where one is the plain
    network trained for the FLOPs of a DHM run among them."""
    longest = max((run.epochs for run in runs if run.method == "baseline"), default=0)
    mimicking = [run for run in runs if run.method == "dhm" and run.epochs < longest]
    equal = {at_equal_flops(run).digest for run in mimicking}
    return [variant(run) + (f", {EQUAL}" if run.digest in equal else "") for run in runs]


def spoken(name: str) -> str:
    """A variant as tables and figures print it: "dsl, bare heads at B1" is "DSL (bare heads) at B1"."""
    trained, *head = name.split(" at ")
    method, *departures = trained.split(", ")
    told = " at ".join([method + (f" ({', '.join(departures)})" if departures else ""), *head])
    return told.replace("dsl", "DSL").replace("dhm", "DHM").replace("dml", "DML")


def method_of(name: str) -> str:
    """The method behind a variant, mutual learning ("dml") as one of its own; a branch alone is trained as a
    baseline is."""
    return next((method for method in ("dsl", "dhm", "dml") if name.startswith(method)), "baseline")
