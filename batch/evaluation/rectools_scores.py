"""Fit one RecTools model and write each asked user's best items; run by an interpreter that has RecTools, not ours."""

from __future__ import annotations

import sys
from importlib import import_module

import numpy as np
import pandas as pd


def main(asked: str, answered: str) -> None:
    """From the .npz at `asked` (model, interactions, users) to the .npz at `answered` (user, item, score)."""
    rectools, models, datasets = (import_module(name) for name in ("rectools", "rectools.models", "rectools.dataset"))
    columns = rectools.Columns
    with np.load(asked) as given:
        name = str(given["model"])
        params = {
            str(key): int(value) if float(value).is_integer() and str(key) != "regularization" else float(value)
            for key, value in zip(given["names"], given["values"], strict=True)
        }
        frame = pd.DataFrame(
            {
                columns.User: given["user"],
                columns.Item: given["item"],
                columns.Weight: given["weight"],
                columns.Datetime: pd.Timestamp(0),
            }
        )
        users, depth = given["asked"], int(given["depth"])
    dataset = datasets.Dataset.construct(frame)
    model = getattr(models, name)(**params)
    model.fit(dataset)
    found = model.recommend(users=users, dataset=dataset, k=depth, filter_viewed=False)
    found = found.sort_values([columns.User, columns.Rank])
    np.savez(
        answered,
        user=found[columns.User].to_numpy(),
        item=found[columns.Item].to_numpy(),
        score=found[columns.Score].to_numpy(),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
