"""Privacy accounting: reference values, limits, and what is reported without the library."""

from __future__ import annotations

import importlib.util
import math
import sys

import pytest
from fedbench_baselines.dp import epsilon
from scipy.optimize import brentq
from scipy.stats import norm

from fedbench import ConfigError

needs_library = pytest.mark.skipif(
    importlib.util.find_spec("dp_accounting") is None,
    reason="needs dp-accounting (pip install 'fedbench-toolkit[privacy]')",
)


def gaussian(z: float, delta: float) -> float:
    """Return epsilon of one Gaussian mechanism, exactly (Balle and Wang, ICML 2018)."""

    def excess(eps: float) -> float:
        tail = math.exp(eps + norm.logcdf(-1 / (2 * z) - eps * z))
        return float(norm.cdf(1 / (2 * z) - eps * z)) - tail - delta

    return float(brentq(excess, 0, 100))


@needs_library
def test_reference_values() -> None:
    """Poisson sampling agrees with the accountant PRV; see also the RDP bound, 6.62."""
    assert epsilon(1.1, 100, 1e-5, 10, 100, "poisson") == pytest.approx(5.91, abs=0.005)
    assert epsilon(2.2, 100, 1e-5, 10, 100, "without_replacement") == pytest.approx(
        12.26, abs=0.005
    )


@needs_library
@pytest.mark.parametrize("z", [0.5, 1.0, 4.0])
def test_all_clients_in_one_round_are_one_gaussian_mechanism(z: float) -> None:
    assert epsilon(z, 1, 1e-5, 10, 10, "poisson") == pytest.approx(gaussian(z, 1e-5), rel=1e-3)
    # RDP is a bound, and replacing a client moves the sum twice as far.
    exact = gaussian(z / 2, 1e-5)
    assert exact < epsilon(z, 1, 1e-5, 10, 10, "without_replacement") < 1.25 * exact


@needs_library
def test_rounds_of_all_clients_compose_as_one_with_less_noise() -> None:
    many = epsilon(10.0, 25, 1e-5, 10, 10, "poisson")
    assert many == pytest.approx(gaussian(10 / math.sqrt(25), 1e-5), rel=1e-3)


@needs_library
@pytest.mark.parametrize("sampling", ["poisson", "without_replacement"])
def test_epsilon_falls_with_noise_and_grows_with_rounds_and_sampling(sampling: str) -> None:
    def of(z: float = 2.0, rounds: int = 2, sampled: int = 10) -> float:
        return epsilon(z, rounds, 1e-5, sampled, 100, sampling)  # type: ignore[arg-type]

    usual = of()
    assert 0 < of(z=4.0) < usual
    assert usual < of(rounds=4)
    assert usual < of(sampled=20)


@needs_library
def test_sampling_nearly_all_clients_costs_no_more_than_sampling_all() -> None:
    """The bound with sampling alone is 180 for 99 of 100, where that without it is 83."""
    nearly, all_of_them = (
        epsilon(2.2, 100, 1e-5, sampled, 100, "without_replacement") for sampled in (99, 100)
    )
    assert nearly == all_of_them == pytest.approx(83.1, abs=0.05)


@needs_library
@pytest.mark.parametrize("z", [0.05, 1e-3])
def test_little_noise_takes_little_memory(z: float) -> None:
    """The histogram of the privacy loss had 5e9 bins for z = 0.001."""
    one = epsilon(z, 1, 1e-5, 10, 100, "poisson")
    assert 1 / (2 * z**2) < one < 3 / z**2


def test_no_rounds_no_clients_and_no_noise_need_no_accountant() -> None:
    for sampling in ("poisson", "without_replacement"):
        assert epsilon(1.0, 0, 1e-5, 10, 100, sampling) == 0.0  # type: ignore[arg-type]
        assert epsilon(1.0, 10, 1e-5, 0, 100, sampling) == 0.0  # type: ignore[arg-type]
        assert epsilon(0.0, 10, 1e-5, 10, 100, sampling) == math.inf  # type: ignore[arg-type]


@pytest.mark.parametrize("sampling", ["poisson", "without_replacement"])
def test_without_the_library_the_error_names_the_extra(
    sampling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ConfigError, match=r"needs dp-accounting.*'fedbench-toolkit\[privacy\]'"):
        epsilon(1.0, 1, 1e-5, 10, 100, sampling)  # type: ignore[arg-type]


@pytest.mark.parametrize("sampled", [101, -1])
def test_more_clients_than_there_are_cannot_be_sampled(sampled: int) -> None:
    with pytest.raises(ConfigError, match=f"{sampled} clients per round .* from 100 clients"):
        epsilon(1.0, 1, 1e-5, sampled, 100, "poisson")
