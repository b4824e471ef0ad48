"""DP-FedAvg: what clipped updates with Gaussian noise guarantee to every client.

McMahan, Ramage, Talwar, Zhang: Learning Differentially Private Recurrent Language Models, ICLR
2018. The paper was not re-read. The accountants are those of the library dp-accounting, an extra:
``pip install 'fedbench-toolkit[privacy]'``.

Every client's update is clipped to norm S, `clipping.clip`; Gaussian noise with standard deviation
``z S`` is added to their sum, and the sum is divided by a fixed number of clients. How clients are
sampled decides which formula holds. Cohorts of a fixed size are not Poisson samples, although
results are often reported as if they were.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from fedbench import ConfigError


def epsilon(
    noise_multiplier: float,
    rounds: int,
    delta: float,
    sampled: int,
    num_clients: int,
    sampling: Literal["poisson", "without_replacement"],
) -> float:
    """Return the epsilon of (epsilon, delta)-differential privacy for one client's participation.

    - ``poisson``: each client takes part with probability ``sampled / num_clients``, independently.
      Neighbours differ by one client more or less; PLD accountant.
    - ``without_replacement``: cohorts of ``sampled`` clients. Neighbours differ by one client being
      replaced, which moves the sum by up to 2 S: the multiplier is ``z / 2``. RDP accountant.

    The two are guarantees of different kinds; their numbers cannot be compared. If all clients take
    part in every round, sampling adds nothing, and the same accountant is used.

    Args:
        noise_multiplier: z, the noise's standard deviation on the sum in units of S; 0 gives
            infinity.
        rounds: how many times noise is added, at least 0.
        delta: between 0 and 1.
        sampled: clients per round; the expected number for ``poisson``.
        num_clients: N, all registered clients.
        sampling: how the clients of a round are drawn.

    Raises:
        ConfigError: when dp-accounting is needed and not installed, or when
            ``sampled > num_clients``.
    """
    if not 0 <= sampled <= num_clients:
        raise ConfigError(
            f"dp: {sampled} clients per round cannot be sampled from {num_clients} clients"
        )
    if rounds == 0 or sampled == 0:
        return 0.0
    if noise_multiplier == 0:
        return math.inf
    compute = _poisson if sampling == "poisson" else _without_replacement
    return compute(noise_multiplier, rounds, delta, sampled, num_clients)


def _poisson(z: float, rounds: int, delta: float, sampled: int, num_clients: int) -> float:
    dp, pld, _ = _import_accountants()
    # The privacy loss, of which PLD keeps a histogram, reaches about 1 / z^2. With the default
    # width for every z, a small one would take more memory than there is.
    width = 1e-4 * max(1.0, 1 / z) ** 2
    accountant = pld.PLDAccountant(
        dp.NeighboringRelation.ADD_OR_REMOVE_ONE, value_discretization_interval=width
    )
    event = dp.GaussianDpEvent(z)
    if sampled < num_clients:
        event = dp.PoissonSampledDpEvent(sampled / num_clients, event)
    accountant.compose(event, rounds)
    return float(accountant.get_epsilon(delta))


def _without_replacement(
    z: float, rounds: int, delta: float, sampled: int, num_clients: int
) -> float:
    dp, _, rdp = _import_accountants()
    noise = dp.GaussianDpEvent(z / 2)
    events = [noise]
    if sampled < num_clients:
        events.append(dp.SampledWithoutReplacementDpEvent(num_clients, sampled, noise))
    found = []
    # Sampling never costs privacy, so both bounds hold. That with sampling is the larger one if
    # nearly all clients are sampled.
    for event in events:
        accountant = rdp.RdpAccountant(neighboring_relation=dp.NeighboringRelation.REPLACE_ONE)
        accountant.compose(event, rounds)
        found.append(float(accountant.get_epsilon(delta)))
    return min(found)


def _import_accountants() -> tuple[Any, Any, Any]:
    try:
        import dp_accounting
        from dp_accounting import pld, rdp
    except ImportError as error:
        raise ConfigError(
            "dp needs dp-accounting to compute epsilon; install it: "
            "pip install 'fedbench-toolkit[privacy]'"
        ) from error
    return dp_accounting, pld, rdp
