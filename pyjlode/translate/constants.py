"""Integers and truth values that a graph computes from constants alone, such as indices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from .known import Known, is_discrete, union
from .operations import plain_name


class Constants:
    """Follows the integers and truth values of a graph that are computed from constants alone.

    Parameters
    ----------
    outside : mapping of int to Known
        By id, the tensors from outside whose values may be used.
    """

    def __init__(self, outside: Mapping[int, Known]) -> None:
        self._outside = outside
        self._found: dict[fx.Node, Tensor] = {}
        self._known: dict[fx.Node, Known] = {}
        self._stopped = False

    def tensor(self, node: fx.Node, x: Tensor) -> None:
        """A node that stands for a tensor from outside."""
        if id(x) in self._outside and is_discrete(x):
            self._found[node] = x
            self._known[node] = self._outside[id(x)]

    def call(self, node: fx.Node, folded: Mapping[fx.Node, Any]) -> Known | None:
        """What an operation's result is, if all that it is computed from is known."""
        target, inputs = node.target, node.all_input_nodes
        if not isinstance(target, torch._ops.OpOverload):
            return None
        if plain_name(target).endswith("_") and (inputs[0] in self._found or inputs[0] in folded):
            self._stopped = True  # from here on others have other values
        if self._stopped or not any(n in self._found for n in inputs):
            return None
        if any(n not in self._found and n not in folded for n in inputs):
            return None

        def real(n: fx.Node) -> Any:
            return self._found[n] if n in self._found else folded[n]

        value = target(*fx.map_arg(node.args, real), **fx.map_arg(node.kwargs, real))
        if not (isinstance(value, Tensor) and is_discrete(value)):
            return None
        self._found[node] = value
        origins = union(self._known[n] for n in inputs if n in self._known)
        self._known[node] = Known(value.reshape(-1).numpy(), origins)
        return self._known[node]
