"""A small cost model, fitted to measurements by non-negative least squares, and its predictions.

Errors count relative to the measured value. What lies outside of the measured range is an
extrapolation and is called so wherever it is shown.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls

Row = Mapping[str, Any]
Terms = Mapping[str, Callable[[Row], float]]

SECONDS: Terms = {
    "1": lambda p: 1.0,
    "MB": lambda p: size(p),
    "clients": lambda p: p["clients"],
    "clients MB": lambda p: p["clients"] * size(p),
    "clients / workers": lambda p: p["clients"] / parallel(p),
    "clients MB / workers": lambda p: p["clients"] * size(p) / parallel(p),
    "clients examples / workers": lambda p: p["clients"] * p["examples"] / parallel(p),
}
"""Seconds per round: a fixed part, a part per client on the server, and parts shared by workers."""

MEGABYTES: Terms = {
    "1": lambda p: 1.0,
    "workers": lambda p: p["workers"],
    "MB": lambda p: size(p),
    "MB workers": lambda p: size(p) * p["workers"],
    "clients": lambda p: p["clients"],
    "pictures": lambda p: p["pictures"] * (784 if p["examples"] else 64) / 1e6,
    "training workers": lambda p: p["workers"] if p["examples"] else 0.0,
}
"""Peak memory of all processes, in MB."""

REGISTERED: Terms = {"1": lambda p: 1.0, "registered": lambda p: p["registered"]}
"""The cost of a registered client, whether or not it takes part."""


def size(point: Row) -> float:
    """The weights in MB."""
    return 4 * point["parameters"] / 1e6


def parallel(point: Row) -> int:
    """How many workers can really run at the same time."""
    return min(point["workers"], point.get("cores") or os.cpu_count() or 1)


def solve(rows: Sequence[Row], terms: Terms, column: str) -> dict[str, Any]:
    """Fit ``column`` as a sum of terms with factors of at least 0."""
    used = [row for row in rows if row[column]]
    if len(used) < 2:
        return {}
    target = np.array([row[column] for row in used], dtype=float)
    table = np.array([[term(row) for term in terms.values()] for row in used], dtype=float)
    weighted = table / target[:, None]
    scale = np.abs(weighted).max(axis=0)
    scale[scale == 0] = 1.0
    factors = nnls(weighted / scale, np.ones(len(used)))[0] / scale
    errors = np.abs(table @ factors / target - 1)
    named = dict(zip(terms, map(float, factors), strict=True))
    return {
        "factors": named,
        "formula": " + ".join(f"{v:.3g} {k}".removesuffix(" 1") for k, v in named.items() if v),
        "median_error": statistics.median(errors.tolist()),
        "largest_error": float(errors.max()),
        "points": len(used),
        "extrapolated": [],
    }


def foretell(fitted: Mapping[str, Any], terms: Terms, point: Row) -> float:
    """Return the fitted value at a point."""
    return float(sum(fitted["factors"][name] * term(point) for name, term in terms.items()))


def fit(rows: Sequence[Row]) -> dict[str, Any]:
    """Fit time, memory and the cost of registered clients, and extrapolate each of them."""
    pooled = [r for r in rows if r["workers"] and r["experiment"] != "registered"]
    registered = [r for r in rows if r["experiment"] == "registered"]
    found = {
        "seconds a round": solve(pooled, SECONDS, "seconds"),
        "peak MB": solve(pooled, MEGABYTES, "megabytes"),
        "seconds to the first round": solve(registered, REGISTERED, "first_round"),
        "peak MB by registered clients": solve(registered, REGISTERED, "megabytes"),
    }
    found = {name: one for name, one in found.items() if one}
    nodes = {"parameters": 1_663_370, "examples": 600, "workers": 128, "cores": 128}
    for clients in (1_000, 10_000):
        if one := found.get("seconds a round"):
            what = (
                f"{clients:,} clients per round with 600 examples each, McMahan's CNN, 64 nodes "
                "with 2 workers each (network time not included)"
            )
            value = foretell(one, SECONDS, {**nodes, "clients": clients})
            one["extrapolated"].append({"what": what, "value": value, "unit": "s"})
    for name, unit in (
        ("seconds to the first round", "s"),
        ("peak MB by registered clients", "MB"),
    ):
        if one := found.get(name):
            value = foretell(one, REGISTERED, {"registered": 1_000_000})
            what = "a million registered clients"
            one["extrapolated"].append({"what": what, "value": value, "unit": unit})
    return found
