"""The shop's categories as a tree, with how many items may be shown in each: from the live columns alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from shared.features.items import ItemTable
from shared.features.views import Rows


@dataclass(frozen=True, slots=True)
class CategoryNode:
    """One category on its path from the root; `items_count` items are in it or below it. Children by name."""

    name: str
    path: tuple[str, ...]
    items_count: int
    children: tuple[CategoryNode, ...]


@dataclass(frozen=True, slots=True)
class CategoryTree:
    """The roots by name; of `items_count` items `uncategorised_count` have no category."""

    roots: tuple[CategoryNode, ...]
    items_count: int
    uncategorised_count: int


def tree_of(table: ItemTable, rows: Rows) -> CategoryTree:
    """The tree of these rows. The same name under two parents is two categories."""
    paths = table.paths[rows]
    counts: dict[tuple[int, ...], int] = {}
    groups = np.zeros(len(rows), dtype=np.int64)
    parents: list[tuple[int, ...]] = [()]
    held = np.arange(len(rows))
    for depth in range(paths.shape[1]):
        codes = paths[held, depth]
        held, codes = held[codes >= 0], codes[codes >= 0]
        if not len(held):
            break
        width = int(codes.max()) + 1
        pairs, inverse, sizes = np.unique(groups[held] * width + codes, return_inverse=True, return_counts=True)
        parents = [(*parents[pair // width], pair % width) for pair in pairs.tolist()]
        counts |= dict(zip(parents, sizes.tolist(), strict=True))
        groups[held] = inverse
    children: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for path in counts:
        children.setdefault(path[:-1], []).append(path)
    roots = _nodes(table, (), counts, children)
    return CategoryTree(roots, len(rows), len(rows) - sum(root.items_count for root in roots))


def _nodes(
    table: ItemTable,
    parent: tuple[int, ...],
    counts: dict[tuple[int, ...], int],
    children: dict[tuple[int, ...], list[tuple[int, ...]]],
) -> tuple[CategoryNode, ...]:
    nodes = [
        CategoryNode(
            table.name(path[-1]),
            tuple(map(table.name, path)),
            counts[path],
            _nodes(table, path, counts, children),
        )
        for path in children.get(parent, ())
    ]
    return tuple(sorted(nodes, key=lambda node: node.name))
