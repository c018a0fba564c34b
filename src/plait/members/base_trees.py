"""Decision trees as arrays that are checked, and answered without the library that grew them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

IS_CATEGORICAL, DEFAULTS_LEFT = 1, 2  # bits of LightGBM's `decision_type`
MISSING = 2  # the bit from which on it has the kind of missing values
NO_MISSING, ZERO_MISSING, NAN_MISSING = 0, 1, 2

LEAF = -1  # the feature of a leaf
PLACES = 1 << 20  # rows times trees that are answered at once

KINDS: dict[str, np.dtype] = {
    "feature": np.dtype(np.int32),
    "threshold": np.dtype(np.float64),
    "left": np.dtype(np.int32),
    "right": np.dtype(np.int32),
    "missing_left": np.dtype(np.uint8),
    "value": np.dtype(np.float64),
    "sizes": np.dtype(np.int32),
}


@dataclass(frozen=True)
class Forest:
    """Trees whose leaves add up to the outputs: tree `t` counts for output `t % outputs`.

    The nodes of all trees stand one after the other, `sizes` (trees,) of them in each tree, the root first.
    A row whose number `feature` is at most the `threshold` goes to the node `left`, otherwise `right`; one
    that lacks the number goes left if `missing_left`. Children are counted within their tree, and come after
    their parent. A leaf has the feature -1, and adds its `value`.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray
    sizes: np.ndarray
    outputs: int

    @classmethod
    def of_text(cls, text: str) -> Forest:
        """Convert what LightGBM's `Booster.model_to_string` has returned."""
        header, *sections = text.partition("\nend of trees")[0].split("\nTree=")
        outputs = int(_entries(header)["num_tree_per_iteration"])
        trees = []
        for section in sections:
            trees.append(_Tree.of_text(_entries(section)))
        arrays = {}
        for name, kind in KINDS.items():
            by_tree = [np.asarray(getattr(tree, name)) for tree in trees]

            # Without trees, there would be nothing to concatenate.
            arrays[name] = np.concatenate([np.zeros(0), *by_tree]).astype(kind)
        return cls(**arrays, outputs=outputs)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], outputs: int, numbers: int) -> Forest:
        """Invert `tensors`, for rows of so many numbers.

        Raises `KeyError` or `ValueError` unless they are trees that answer any row with a finite number.
        """
        arrays = {}
        for name, kind in KINDS.items():
            array = tensors[name].numpy()
            if array.ndim != 1 or array.dtype != kind:
                raise ValueError(f"'{name}' is {array.dtype} {array.shape}, expected {kind} of one dimension")
            arrays[name] = array
        forest = cls(**arrays, outputs=outputs)
        forest.check(numbers)
        return forest

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays by name."""
        return {name: torch.from_numpy(getattr(self, name)) for name in KINDS}

    def check(self, numbers: int) -> None:
        """Raise `ValueError` unless these are trees for rows of so many numbers.

        Every node but a root has one parent that stands before it, so every walk from a root ends in a leaf.
        """
        self._check_sizes()
        self._check_nodes(numbers)
        self._check_children()

    def _check_sizes(self) -> None:
        """Raise `ValueError` unless the arrays have the nodes of all trees, and each output as many trees."""
        count = len(self.feature)
        for name in KINDS:
            if name != "sizes" and len(getattr(self, name)) != count:
                raise ValueError("nodes have different numbers of entries")
        if (self.sizes < 1).any() or int(self.sizes.sum(dtype=np.int64)) != count:
            raise ValueError(f"the trees have other sizes than their {count} nodes")
        if self.outputs < 1 or len(self.sizes) % self.outputs:
            raise ValueError(f"{len(self.sizes)} trees cannot give {self.outputs} outputs")

    def _check_nodes(self, numbers: int) -> None:
        """Raise `ValueError` unless each node can compare a row of so many numbers, or answers it."""
        features = self.feature[self.feature != LEAF]
        if ((features < 0) | (features >= numbers)).any():
            raise ValueError(f"a node reads a number that rows of {numbers} numbers do not have")

        # An infinite threshold parts the rows that have a number from those that lack it.
        if np.isnan(self.threshold).any() or not np.isfinite(self.value).all():
            raise ValueError("a threshold is no number, or a leaf not finite")

    def _check_children(self) -> None:
        """Raise `ValueError` unless children come after their parents, and have one each."""
        inner = np.flatnonzero(self.feature != LEAF)
        first, last = self._bounds()
        parents = np.zeros(len(self.feature), np.int64)
        for child in (self.left, self.right):
            node = child[inner] + first[inner]
            if ((node <= inner) | (node >= last[inner])).any():
                raise ValueError("a node's child does not come after it in its tree")
            np.add.at(parents, node, 1)
        parents[self._roots] += 1
        if (parents != 1).any():
            raise ValueError("a node has several parents, or none")

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the outputs of rows (rows, numbers), NaN where a number is missing: (rows, outputs)."""
        rows, numbers = x.shape
        total = np.zeros((rows, self.outputs))
        trees = len(self.sizes)
        if not trees:
            return total

        # All trees of some rows take a step at once: a loop over trees would be slow in Python.
        flat = np.ascontiguousarray(x).reshape(-1)
        step = max(PLACES // trees, 1)
        for start in range(0, rows, step):
            offsets = np.arange(start, min(start + step, rows))[:, None] * numbers
            node = np.broadcast_to(self._roots, (len(offsets), trees))
            for _ in range(self._depth):
                number = flat[offsets + self._walked.feature[node]]
                is_right = number > self._walked.threshold[node]
                is_right |= np.isnan(number) & self._walked.missing_right[node]
                node = self._walked.children[2 * node + is_right]
            values = self.value[node].reshape(len(offsets), -1, self.outputs)
            total[start : start + len(offsets)] = values.sum(1)
        return total

    @cached_property
    def _roots(self) -> np.ndarray:
        """The place of each tree's first node."""
        return np.cumsum(self.sizes, dtype=np.int64) - self.sizes

    def _bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Return for each node the place of its tree's first node, and the place behind its last."""
        first = np.repeat(self._roots, self.sizes)
        last = np.repeat(self._roots + self.sizes, self.sizes)
        return first, last

    @cached_property
    def _walked(self) -> _Walked:
        """The nodes as a walk needs them: a leaf leads back to itself."""
        is_leaf = self.feature == LEAF
        first, _ = self._bounds()
        itself = np.arange(len(self.feature))
        left = np.where(is_leaf, itself, self.left + first)
        right = np.where(is_leaf, itself, self.right + first)
        return _Walked(
            feature=np.where(is_leaf, 0, self.feature),
            threshold=np.where(is_leaf, np.inf, self.threshold),
            missing_right=~self.missing_left.astype(bool),
            children=np.stack([left, right], 1).reshape(-1),
        )

    @cached_property
    def _depth(self) -> int:
        """The steps of the longest walk from a root to a leaf."""
        depth = 0
        inner = self._roots[self.feature[self._roots] != LEAF]
        while len(inner):
            depth += 1
            children = self._walked.children.reshape(-1, 2)[inner].reshape(-1)
            inner = children[self.feature[children] != LEAF]
        return depth


@dataclass(frozen=True)
class _Walked:
    """What a walk through the nodes of a forest reads. `children` has the left and the right of each node."""

    feature: np.ndarray
    threshold: np.ndarray
    missing_right: np.ndarray
    children: np.ndarray


@dataclass(frozen=True)
class _Tree:
    """One tree: its inner nodes, then its leaves. See `Forest`."""

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    value: np.ndarray
    sizes: list[int]

    @classmethod
    def of_text(cls, entries: Mapping[str, str]) -> _Tree:
        """Convert a tree of LightGBM. Raises `ValueError` for kinds of trees that plait does not grow."""
        leaves = int(entries["num_leaves"])
        nodes = leaves - 1
        decision = _numbers(entries, "decision_type", np.dtype(np.int64))
        missing = decision >> MISSING
        if (decision & IS_CATEGORICAL).any() or (missing == ZERO_MISSING).any():
            raise ValueError("expected trees that compare numbers, with NaN for missing ones")

        # LightGBM numbers leaves apart, and writes the complement of their numbers.
        children = {}
        for side in ("left", "right"):
            child = _numbers(entries, f"{side}_child", np.dtype(np.int64))
            children[side] = np.concatenate(
                [np.where(child < 0, nodes + ~child, child), np.zeros(leaves, np.int64)]
            )

        # A feature without a missing number in training: one that is missing counts as 0.
        threshold = _numbers(entries, "threshold", np.dtype(np.float64))
        defaults_left = (decision & DEFAULTS_LEFT) > 0
        missing_left = np.where(missing == NAN_MISSING, defaults_left, threshold >= 0)
        feature = _numbers(entries, "split_feature", np.dtype(np.int64))
        return cls(
            feature=np.concatenate([feature, np.full(leaves, LEAF)]),
            threshold=np.concatenate([threshold, np.zeros(leaves)]),
            left=children["left"],
            right=children["right"],
            missing_left=np.concatenate([missing_left, np.zeros(leaves, bool)]),
            value=np.concatenate([np.zeros(nodes), _numbers(entries, "leaf_value", np.dtype(np.float64))]),
            sizes=[nodes + leaves],
        )


def _entries(section: str) -> dict[str, str]:
    """Return the entries `name=value` of a section of LightGBM's text."""
    entries = {}
    for line in section.splitlines():
        name, _, value = line.partition("=")
        entries[name] = value
    return entries


def _numbers(entries: Mapping[str, str], name: str, kind: np.dtype) -> np.ndarray:
    """Return an entry's numbers. A tree of one leaf has no nodes, so none of their entries."""
    return np.array(entries.get(name, "").split(), dtype=kind)
