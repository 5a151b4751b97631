"""Stage: the neighbour lists of every item, of every kind and span, as Spark jobs over slices of the items."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from batch.models.bought_together import bought_together
from batch.models.neighbour_lists import list_heads
from batch.models.similar_items import similar_items
from batch.periods import SPANS, Span
from batch.retrieval_span import RetrievalSpan, load_span
from batch.spark import add_master_argument, parallelism, spark_session, task_progress, write_parts
from shared.adapters.stage_folder import replace_folder
from shared.candidates.query import ListKind
from shared.candidates.span import LISTS_FOLDER
from shared.cli import command

SLICE_ITEMS: Final = 512
"""Items that are worked on at once: a dense block of them against all items must fit into a worker's memory."""

_SCHEMA: Final = "span string, kind string, item int, indexes array<int>, columns array<array<float>>"
_ARROW_SCHEMA: Final = pa.schema(
    [
        pa.field("span", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("item", pa.int32()),
        pa.field("indexes", pa.list_(pa.int32())),
        pa.field("columns", pa.list_(pa.list_(pa.float32()))),
    ]
)

Slice = tuple[Span, ListKind, int, int]
"""Span, kind, first item, and the item after the last."""
Columns = tuple[NDArray[np.int32], list[NDArray[np.floating | np.integer]]]


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Write nightly/lists/<span>/<kind> of a shop's folder."""
    parser = argparse.ArgumentParser(prog="python -m batch.build_neighbours", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the shop")
    parser.add_argument("--list-size", type=int, metavar="K", help="longest list, instead of the parameters'")
    add_master_argument(parser)
    arguments = parser.parse_args(argv)
    spark = spark_session(arguments.data, arguments.master)
    build_neighbours(spark, arguments.data.resolve(), arguments.list_size)
    return 0


def build_neighbours(spark: SparkSession, data: Path, list_size: int | None = None) -> None:
    """Build all lists in one job and replace nightly/lists as a whole; `list_size` stands in for the parameters'.

    Raises ConfigurationError when retrieval was not fitted.
    """
    started = perf_counter()
    fitted = {span: load_span(data, span) for span in SPANS}
    items_count = {span: len(of.items.factors) for span, of in fitted.items()}
    sizes = {span: list_size or of.params.list_size for span, of in fitted.items()}
    slices: list[Slice] = [
        (span, kind, start, min(start + SLICE_ITEMS, items_count[span]))
        for span in SPANS
        for kind in ListKind
        for start in range(0, items_count[span], SLICE_ITEMS)
    ]
    # Neighbouring slices cost alike; dealt out in turn, no task gets all the dear ones.
    tasks = min(len(slices), parallelism(spark))
    dealt = [one for task in range(tasks) for one in slices[task::tasks]]
    places = spark.range(0, len(dealt), 1, numPartitions=tasks)
    with replace_folder(data / LISTS_FOLDER) as folder, task_progress(spark, "neighbours"):
        write_parts(places.mapInArrow(_slices_to_lists(data, dealt, sizes), _SCHEMA), folder, by=("span", "kind"))
        for span in SPANS:
            (folder / f"span={span}").rename(folder / span)
            for kind in ListKind:
                (folder / span / f"kind={kind.value}").rename(folder / span / kind.value)
    seconds, count = perf_counter() - started, len(ListKind) * sum(items_count.values())
    of = f"{len(ListKind)} kinds and {len(SPANS)} spans"
    print(f"  {count:,} lists of {of} in {seconds:.1f} s ({count / seconds:,.0f}/s)")


def cut_lists(fitted: RetrievalSpan, kind: ListKind, start: int, stop: int, list_size: int) -> Columns:
    """The lists of the items `start` to `stop`: int32[rows, k] indexes (-1 pads) and columns [rows, k], score first.

    bought_together adds to the score the count of baskets that hold both, lift and confidence.
    """
    params = fitted.params
    if kind in fitted.matrices:
        heads = list_heads(fitted.matrices[kind], start, stop, k=list_size, seed=params.seed)
        return heads.indexes, [heads.scores]
    if kind is ListKind.SIMILAR:
        met = fitted.matrices[ListKind.COOCCURRENCE]
        share = params.similar.cosine_share
        like = similar_items(fitted.items.factors, met, start, stop, k=list_size, cosine_share=share, seed=params.seed)
        return like.indexes, [like.scores]
    least = params.bought_together.min_count
    bought = bought_together(fitted.baskets, start, stop, k=list_size, min_count=least, seed=params.seed)
    return bought.indexes, [bought.scores, bought.count, bought.lift, bought.confidence]


def _slices_to_lists(
    data: Path, slices: Sequence[Slice], sizes: Mapping[Span, int]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A worker's function from rows that hold a place in `slices` to the lists of that slice."""

    def lists_of(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        fitted: dict[Span, RetrievalSpan] = {}
        for place in (place for batch in batches for place in batch.column(0).to_pylist()):
            span, kind, start, stop = slices[place]
            if span not in fitted:
                fitted[span] = load_span(data, span)
            yield batch_of(span, kind, start, cut_lists(fitted[span], kind, start, stop, sizes[span]))

    return lists_of


def batch_of(span: Span, kind: ListKind, start: int, cut: Columns) -> pa.RecordBatch:
    """Padded arrays of the items from `start` on as rows with ragged lists."""
    indexes, columns = cut
    found = indexes >= 0
    lengths = found.sum(axis=1)
    offsets = np.r_[0, np.cumsum(lengths)].astype(np.int32)
    # Per row, its columns one after the other: [rows, columns, k] read in that order where found.
    stacked = np.stack([column.astype(np.float32) for column in columns], axis=1)
    kept = np.repeat(found[:, None, :], len(columns), axis=1)
    inner = np.r_[0, np.cumsum(np.repeat(lengths, len(columns)))].astype(np.int32)
    outer = (np.arange(len(indexes) + 1) * len(columns)).astype(np.int32)
    values = pa.ListArray.from_arrays(pa.array(inner), pa.array(stacked[kept]))
    return pa.RecordBatch.from_arrays(
        [
            pa.repeat(span, len(indexes)),
            pa.repeat(kind.value, len(indexes)),
            pa.array(np.arange(start, start + len(indexes), dtype=np.int32)),
            pa.ListArray.from_arrays(pa.array(offsets), pa.array(indexes[found])),
            pa.ListArray.from_arrays(pa.array(outer), values),
        ],
        schema=_ARROW_SCHEMA,
    )


if __name__ == "__main__":
    sys.exit(main())
