"""What a run is called in a table: one name for the same training wherever it stands."""

from collections.abc import Mapping
from typing import Any

from dhm.recipes import shallow
from dhm.zoo import family_of

FIXED = "fixed scale"


def variant(run: Mapping[str, Any]) -> str:
    """The name of what was done to a network, from the fields of its configuration.

    It starts with the method, or with "B1 alone" for an isolated branch, and goes on with what departs from the
    recipe: "dhm with B1" (these side branches only), "dhm top-down", "dsl, bare heads" (classifiers directly on the
    layers), "baseline, fixed scale" (scale augmentation cancelled, where the recipe has it).
    """
    name = f"{run['isolated']} alone" if run["isolated"] != "B0" else run["method"]
    branches = run["branches"]
    if run["method"] != "baseline" and not isinstance(branches, str):
        bare = all(not branch.get("depths") for branch in branches)
        name += ", bare heads" if bare else " with " + " & ".join(branch["name"] for branch in branches)
    if run["direction"] != "both":
        name += " " + run["direction"].replace("_", "-")
    if run["augment"] in ("scale", "fixed_scale") and run["augment"] != _usual_augmentation(run):
        name += f", {FIXED}" if run["augment"] == "fixed_scale" else ", with scale"
    return name


def _usual_augmentation(run: Mapping[str, Any]) -> str:
    cancelled = run["method"] == "dhm" and family_of(run["arch"]) == "imagenet_resnet" and shallow(run)
    return "fixed_scale" if cancelled else "scale"


def spoken(name: str) -> str:
    """A variant as tables and figures print it."""
    return name.replace("dsl", "DSL").replace("dhm", "DHM")


def method_of(name: str) -> str:
    """The method behind a variant; a branch alone is trained as a baseline is."""
    return next((method for method in ("dsl", "dhm") if name.startswith(method)), "baseline")
