"""The named loss terms of one client's turn: checked, added up and averaged for the report."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from .errors import NonFiniteError, PluginError


class LossTerms:
    """The loss terms that plugins return in a turn.

    Args:
        where: the place for error messages.
        lazy: whether to check only the means, at the end of the turn: on a GPU, reading a value
            means waiting for it.
    """

    def __init__(self, where: str, lazy: bool) -> None:
        self._where, self._lazy = where, lazy
        self._sums: dict[str, Tensor] = {}
        self._owners: dict[str, str] = {}
        self._seen = 0

    def total(
        self, returned: Iterable[tuple[str, Callable[[], Any]]], examples: int, record: bool
    ) -> Tensor:
        """Return the sum of the terms of one batch.

        Args:
            returned: (plugin's name, function that returns its terms), in YAML order.
            examples: B.
            record: whether the terms count in `means`.

        Raises:
            PluginError: for a term that is not a floating-point scalar, when two plugins return a
                term of the same name, or when there is no term.
            NonFiniteError: for a NaN or infinite term, naming it and its plugin.
        """
        total: Tensor | None = None
        for plugin, call in returned:
            terms = call()
            if not isinstance(terms, Mapping):
                raise PluginError(
                    f"plugin {plugin!r}: local_loss returned {type(terms).__name__} in "
                    f"{self._where}; return a mapping, {{}} for no term"
                )
            for name, term in terms.items():
                self._check(plugin, name, term)
                if record:
                    counted = term.detach().double() * examples
                    self._sums[name] = self._sums.get(name, 0) + counted
                total = term if total is None else total + term
        if total is None:
            raise PluginError(f"no plugin returned a loss term in {self._where}")
        self._seen += examples if record else 0
        return total

    def _check(self, plugin: str, name: str, term: object) -> None:
        if not isinstance(term, Tensor) or term.ndim != 0 or not term.is_floating_point():
            shape = f"shape {tuple(term.shape)}" if isinstance(term, Tensor) else repr(term)
            raise PluginError(
                f"plugin {plugin!r}: loss term {name!r} must be a floating-point scalar tensor, "
                f"got {shape} in {self._where}"
            )
        if self._owners.setdefault(name, plugin) != plugin:
            raise PluginError(
                f"plugins {self._owners[name]!r} and {plugin!r} both return loss term {name!r}"
            )
        if not self._lazy:
            self._check_finite(name, float(term.detach()))

    def _check_finite(self, name: str, value: float) -> None:
        if not math.isfinite(value):
            raise NonFiniteError(
                f"plugin {self._owners[name]!r}: loss term {name!r} is {value} in {self._where}; "
                "try a smaller learning rate"
            )

    def means(self) -> Iterator[tuple[str, float]]:
        """Yield each recorded term's name and its mean over the examples of the turn.

        Raises:
            NonFiniteError: for a mean that is not finite.
        """
        for name, total in self._sums.items():
            mean = float(total) / self._seen
            self._check_finite(name, mean)
            yield name, mean
