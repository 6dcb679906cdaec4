"""What a training method costs and what it buys."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from dhm.analysis.variants import names
from dhm.flops import inference_flops, training_flops
from dhm.runs import RunRecord
from dhm.zoo import network_of


def prices(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Finished runs by network and variant: error, and what training and answering cost.

    Returns:
        error, std, n: top-1 error of B0 after the last epoch in percent, over seeds; training: multiply-adds of the
        whole training, forward and backward; parameters: trained; inference: multiply-adds of an answer to one image.
    """
    rows = []
    for record, name in zip(records, names([record.config for record in records]), strict=True):
        result = record.result
        assert result is not None, "the run is not finished"
        size, images = result["data"]["image_size"], result["data"]["train_images"]
        with torch.device("meta"):
            answer = inference_flops(network_of(record.config, result["data"]["classes"]), size)
        rows.append(
            {
                "network": record.config.network, "variant": name,
                "error": result["last"]["heads"]["B0"]["top1_error"],
                "training": float(training_flops(record.config, size)) * images * record.config.epochs,
                "parameters": sum(result["parameters"].values()), "inference": answer,
            }
        )  # fmt: skip
    kinds = pd.DataFrame(rows).groupby(["network", "variant"], sort=False)
    errors = kinds["error"].agg(error="mean", std=lambda e: np.std(e, ddof=1) if len(e) > 1 else np.nan, n="count")
    return errors.join(kinds[["training", "parameters", "inference"]].first())
