"""Edits of the trees of a certificate, of every kind that one thinks of."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from tests.check.test_forests import tampered
from zonocuda.prove.forest import LEAF, NEURON, ForestRecord


@dataclass(eq=False)
class Node:
    """A node of a tree: fields of its split, or of its leaf, and what lies below."""

    kind: int
    fields: dict[str, list[Any]]
    below: list[Node] = field(default_factory=list)

    def every(self) -> Iterator[Node]:
        """Itself and all below, in preorder."""
        yield self
        for child in self.below:
            yield from child.every()


def trees_of(forest: ForestRecord) -> list[Node]:
    """The trees of a forest, those of lemmas first."""
    feeds = {name: iter(values.tolist()) for name, values in forest.arrays.items() if values.ndim == 1}

    def take(name: str, many: int = 1) -> list[Any]:
        return [next(feeds[name]) for _ in range(many)]

    def tree(pairs: int) -> Node:
        (kind,) = take("kind")
        if kind != LEAF:
            names = ("relus", "neurons", "points") if kind == NEURON else ("inputs", "at")
            return Node(kind, {name: take(name) for name in names}, [tree(pairs), tree(pairs)])
        own = {name: take(name, pairs) for name in ("counts", "row_slopes", "multiplied")}
        rows, betas = sum(own["counts"]), sum(own["multiplied"])
        own |= {name: take(name) for name in ("scope", "slopes")}
        own |= {name: take(name, rows) for name in ("rows", "weights")}
        return Node(kind, own | {name: take(name, betas) for name in ("splits", "multipliers")})

    return [tree(pairs) for pairs in [*[1] * forest.lemmas, *map(len, forest.trees)]]


def with_trees(forest: ForestRecord, trees: list[Node]) -> ForestRecord:
    """A forest with other trees."""
    every = list(chain.from_iterable(tree.every() for tree in trees))
    told: dict[str, Any] = {"kind": [node.kind for node in every]}
    own = ("relus", "neurons", "points", "inputs", "at", "scope", "slopes", "counts", "row_slopes", "multiplied")
    for name in (*own, "rows", "weights", "splits", "multipliers"):
        told[name] = list(chain.from_iterable(node.fields.get(name, []) for node in every))
    arrays = {name: np.array(values, forest.arrays[name].dtype) for name, values in told.items()}
    return ForestRecord(forest.trees, {**forest.arrays, **arrays}, forest.depth)


Edit = Callable[[list[Node], list[Node], random.Random], None]
"""Changes trees; the second ones are of another proof of the same kind, if there is one."""


def _some(trees: list[Node], rng: random.Random, keep: Callable[[Node], bool]) -> Node | None:
    found = [node for tree in trees for node in tree.every() if keep(node)]
    return rng.choice(found) if found else None


def is_split(node: Node) -> bool:
    """Whether it is no leaf."""
    return node.kind != LEAF


def missing_child(trees: list[Node], others: list[Node], rng: random.Random) -> None:
    """One part of a split is not there."""
    if node := _some(trees, rng, is_split):
        del node.below[rng.randrange(2)]


def forgotten_part(trees: list[Node], others: list[Node], rng: random.Random) -> None:
    """One part of a split is taken for the whole."""
    if node := _some(trees, rng, is_split):
        part = node.below[rng.randrange(2)]
        node.kind, node.fields, node.below = part.kind, part.fields, part.below


def shifted_split(trees: list[Node], others: list[Node], rng: random.Random) -> None:
    """Another place."""
    if node := _some(trees, rng, is_split):
        name = "points" if node.kind == NEURON else "at"
        node.fields[name] = [node.fields[name][0] + rng.choice([-1, 1]) * 10.0 ** rng.randint(-9, 3)]


def other_split(trees: list[Node], others: list[Node], rng: random.Random) -> None:
    """Another coordinate, or another neuron."""
    if node := _some(trees, rng, is_split):
        name = "neurons" if node.kind == NEURON else "inputs"
        node.fields[name] = [max(0, node.fields[name][0] + rng.choice([-1, 1]))]


def swapped_children(trees: list[Node], others: list[Node], rng: random.Random) -> None:
    """The parts of a split in the other order."""
    if node := _some(trees, rng, is_split):
        node.below.reverse()


def foreign_leaf(trees: list[Node], others: list[Node], rng: random.Random) -> None:
    """A leaf with what another one says, of another tree if there is one."""
    if node := _some(trees, rng, lambda node: not is_split(node)):
        pairs = len(node.fields["counts"])
        if other := _some(others or trees, rng, lambda one: len(one.fields.get("counts", [])) == pairs):
            node.fields = copy.deepcopy(other.fields)


def foreign_tree(trees: list[Node], others: list[Node], rng: random.Random) -> None:
    """A part that is another one, of another proof if there is one."""
    if (node := _some(trees, rng, lambda node: True)) and (other := _some(others or trees, rng, lambda node: True)):
        node.kind, node.fields, node.below = other.kind, copy.deepcopy(other.fields), copy.deepcopy(other.below)


def _multiplied(node: Node) -> bool:
    return bool(node.fields.get("multipliers"))


def wrong_sign(trees: list[Node], others: list[Node], rng: random.Random) -> None:
    """A multiplier below 0."""
    if node := _some(trees, rng, _multiplied):
        betas = node.fields["multipliers"]
        k = rng.randrange(len(betas))
        betas[k] = -betas[k]


def moved_multiplier(trees: list[Node], others: list[Node], rng: random.Random) -> None:
    """A multiplier of another split."""
    if node := _some(trees, rng, _multiplied):
        splits = node.fields["splits"]
        splits[rng.randrange(len(splits))] += rng.choice([-1, 1])


def larger_multiplier(trees: list[Node], others: list[Node], rng: random.Random) -> None:
    """A multiplier of another size."""
    if node := _some(trees, rng, _multiplied):
        node.fields["multipliers"] = [beta * rng.choice([0.0, 0.5, 2.0, 1e6]) for beta in node.fields["multipliers"]]


def wider_scope(trees: list[Node], others: list[Node], rng: random.Random) -> None:
    """Bounds of another box."""
    if node := _some(trees, rng, lambda node: not is_split(node)):
        node.fields["scope"] = [node.fields["scope"][0] + rng.choice([-2, -1, 1, 2])]


TREE_EDITS: dict[str, Edit] = {
    "a missing child": missing_child,
    "a part taken for the whole": forgotten_part,
    "a shifted split": shifted_split,
    "a split of something else": other_split,
    "swapped children": swapped_children,
    "a leaf of another tree": foreign_leaf,
    "a part of another tree": foreign_tree,
    "a multiplier of the wrong sign": wrong_sign,
    "a multiplier of another split": moved_multiplier,
    "a multiplier of another size": larger_multiplier,
    "bounds of another box": wider_scope,
}


def _slopes_out_of_range(forest: ForestRecord, other: ForestRecord, rng: random.Random) -> ForestRecord:
    table = np.array(forest.arrays["nonnegative"])
    if table.size:
        table.flat[rng.randrange(table.size)] = rng.randrange(129, 256)
    return ForestRecord(forest.trees, {**forest.arrays, "nonnegative": table}, forest.depth)


def _other_slopes(forest: ForestRecord, other: ForestRecord, rng: random.Random) -> ForestRecord:
    chance = np.random.default_rng(rng.getrandbits(32))
    table = chance.integers(0, 129, forest.arrays["nonnegative"].shape).astype(np.uint8)
    return ForestRecord(forest.trees, {**forest.arrays, "nonnegative": table}, forest.depth)


def _early_lemma(forest: ForestRecord, other: ForestRecord, rng: random.Random) -> ForestRecord:
    """A lemma whose tree rests on what only it, or one behind it, proves: it is said to be about a ReLU before, or its
    splits are of its own ReLU."""
    if not forest.lemmas:
        return forest
    relus = np.array(forest.arrays["lemma_relus"])
    trees = trees_of(forest)
    which = rng.randrange(forest.lemmas)
    if rng.random() < 0.5:
        relus[which] = rng.choice([0, relus[which] + 1])
    for node in trees[which].every():
        if node.kind == NEURON:
            node.fields["relus"] = [int(forest.arrays["lemma_relus"][which])]
            node.fields["neurons"] = [int(forest.arrays["lemma_neurons"][which])]
    edited = with_trees(forest, trees)
    return ForestRecord(edited.trees, {**edited.arrays, "lemma_relus": relus}, edited.depth)


def _foreign_lemma(forest: ForestRecord, other: ForestRecord, rng: random.Random) -> ForestRecord:
    """Lemmas with the trees of another network's, or of each other."""
    if not forest.lemmas:
        return forest
    trees, others = trees_of(forest), trees_of(other)
    given = others[: other.lemmas] if other.lemmas == forest.lemmas else trees[: forest.lemmas][::-1]
    return with_trees(forest, [*copy.deepcopy(given), *trees[forest.lemmas :]])


def _other_lemma(forest: ForestRecord, other: ForestRecord, rng: random.Random) -> ForestRecord:
    """Lemmas that are said to be about other bounds."""
    name = rng.choice(["lemma_upper", "lemma_neurons"])
    values = np.array(forest.arrays[name])
    if len(values):
        k = rng.randrange(len(values))
        values[k] = 1 - values[k] if name == "lemma_upper" else max(0, values[k] + rng.choice([-1, 1]))
    return ForestRecord(forest.trees, {**forest.arrays, name: values}, forest.depth)


ForestEdit = Callable[[ForestRecord, ForestRecord, random.Random], ForestRecord]


def _of_trees(edit: Edit) -> ForestEdit:
    def edited(forest: ForestRecord, other: ForestRecord, rng: random.Random) -> ForestRecord:
        trees = trees_of(forest)
        edit(trees, [] if other is forest else trees_of(other), rng)
        return with_trees(forest, trees)

    return edited


EDITS: dict[str, ForestEdit] = {
    **{name: _of_trees(edit) for name, edit in TREE_EDITS.items()},
    "slopes out of range": _slopes_out_of_range,
    "other slopes": _other_slopes,
    "a lemma used before it is proven": _early_lemma,
    "a lemma of another network": _foreign_lemma,
    "a lemma about something else": _other_lemma,
    "numbers of chance": lambda forest, other, rng: tampered(forest, rng),
}
