"""What is counted of predictions: errors of classifiers, and what a search finds."""

from collections.abc import Mapping


def main_error(figures: Mapping[str, float]) -> float:
    """What the best epoch is chosen by, in percent: the top-1 error of a classifier, or what a search lacks of a
    perfect mAP."""
    return figures["top1_error"] if "top1_error" in figures else 100 - figures["mAP"]


def error_name(figures: Mapping[str, float]) -> str:
    """What `main_error` is of these figures: "error" or, of a search, "100 − mAP"."""
    return "error" if "top1_error" in figures else "100 − mAP"
