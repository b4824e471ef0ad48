"""Top-k, QSGD and signSGD in real rounds, with every method."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fedbench_baselines.qsgd import Qsgd
from fedbench_baselines.signsgd import SignMajority, SignSgd
from fedbench_baselines.topk import TopK, compensate, kept
from torch import Tensor

from fedbench import ClientContext, Run, hookimpl, testing
from fedbench.codec import Codec, Slot
from fedbench.config import resolve as configs
from fedbench.plugins.registry import Registry
from fedbench.types import ClientResult, Payload, Value, nbytes

RunTiny = Callable[..., Run]
CODECS = ("topk", "qsgd", "signsgd")
X = torch.tensor([0.5, -4.0, 0.0, 1.0, 2.0, -0.25])


def digests(run: Run) -> tuple[str, str]:
    result = run.result()
    return result["weights_sha256"], result["metrics_sha256"]


def slot(n: int, update: bool = False) -> Slot:
    return Slot("x", "w", (n,), torch.float32, update)


def round_trip(codec: Codec, values: Tensor, **ctx: Any) -> tuple[Tensor, int]:
    """Return what is decoded of ``values``, and the bytes that travelled."""
    parts = codec.encode(testing.client_context(**ctx), values, slot(len(values)))
    assert parts is not None
    return codec.decode(parts, slot(len(values))), nbytes(parts)


# --- one vector ----------------------------------------------------------------------------------


def test_top_k_by_hand() -> None:
    found, size = round_trip(TopK(ratio=0.3), X)  # ceil(0.3 x 6) = 2
    assert found.tolist() == [0, -4, 0, 0, 2, 0]
    assert size == 2 * 8
    assert TopK(ratio=1.0).encode(testing.client_context(), X, slot(6)) is None


def test_how_many_entries_are_kept() -> None:
    assert [kept(n, 0.1) for n in (1, 10, 11, 30)] == [1, 1, 2, 3]
    assert kept(100, 0.07) == 7  # 0.07 x 100 is 7.000000000000001 in floating point
    assert kept(5, 1.0) == 5
    assert kept(10**6, 1e-9) == 1


@pytest.mark.parametrize(("norm", "scale"), [("max", 4.0), ("l2", float(X.norm()))])
@pytest.mark.parametrize("levels", [1, 7, 127])
def test_qsgd_is_within_one_level_and_takes_a_byte_per_entry(
    norm: Any, scale: float, levels: int
) -> None:
    found, size = round_trip(Qsgd(levels=levels, norm=norm), X)
    assert (found - X).abs().max() <= scale / levels * (1 + 1e-6)
    assert size == 6 + 4


def test_qsgd_draws_anew_for_each_client_and_round_and_is_right_on_average() -> None:
    many = [round_trip(Qsgd(levels=2), X, round=r)[0] for r in range(1, 401)]
    assert torch.allclose(torch.stack(many).mean(0), X, atol=0.2)
    one, again = (round_trip(Qsgd(levels=2), X)[0] for _ in "ab")
    assert torch.equal(one, again)
    clients = {tuple(round_trip(Qsgd(levels=2), X, client=c)[0].tolist()) for c in range(8)}
    assert len(clients) > 1


def test_signs_by_hand() -> None:
    mean = float(X.abs().mean())
    found, size = round_trip(SignSgd(), X)
    assert found.tolist() == pytest.approx([mean, -mean, mean, mean, mean, -mean])
    assert size == 1 + 4
    assert round_trip(SignSgd(scale="one"), X)[0].tolist() == [1, -1, 1, 1, 1, -1]
    # What did not move, such as a frozen layer, stays.
    assert round_trip(SignSgd(scale="one"), torch.zeros(3))[0].tolist() == [0, 0, 0]


def test_the_residual_is_that_of_the_pure_function() -> None:
    ctx = testing.client_context(state={"topk.residual/x/w": -X / 3})
    parts = TopK(ratio=0.5).encoded(ctx, X, slot(6, update=True))
    values, indices, residual = compensate(X, -X / 3, 3)
    assert parts is not None
    assert torch.equal(parts["values"], values)
    assert torch.equal(parts["indices"], indices)
    assert torch.equal(ctx.state["topk.residual/x/w"], residual)  # type: ignore[arg-type]


# --- rounds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.every_method(slow=True, but=["local"])  # local training sends nothing
def test_every_method_runs_with_every_codec(method: str, codec: str, run_tiny: RunTiny) -> None:
    dense = run_tiny(method, rounds=2)
    (key,) = {"weights"} & dense.history[0].bytes_up.keys() or dense.history[0].bytes_up
    run = run_tiny(method, rounds=2, extra={codec: {"keys": (key,)}})
    assert len(run.history) == 2
    # In round 1, as later the number of rows may depend on what has been lost (FedPLVM).
    less, more = (r.history[0].bytes_up for r in (run, dense))
    assert less.keys() == more.keys()
    assert less[key] < more[key]
    assert {k: v for k, v in less.items() if k != key} == {
        k: v for k, v in more.items() if k != key
    }
    assert run.history[0].bytes_down == dense.history[0].bytes_down
    assert digests(run)[1] != digests(dense)[1]


def test_all_keys_of_a_method_together(run_tiny: RunTiny) -> None:
    uploads = tuple(run_tiny("fedhpro", rounds=1).history[0].bytes_up)
    assert len(uploads) == 4
    run = run_tiny("fedhpro", rounds=2, extra={"qsgd": {"keys": uploads}})
    dense = run_tiny("fedhpro", rounds=2)
    for key in uploads:
        assert run.history[1].bytes_up[key] < dense.history[1].bytes_up[key]


@pytest.mark.parametrize("executor", ["inline", {"name": "pool", "workers": 2}])
@pytest.mark.parametrize("method", ["fedavg", "fedproto", "fedhpro"])
def test_top_k_of_everything_is_dense_bit_for_bit(
    method: str, executor: Any, run_tiny: RunTiny
) -> None:
    dense = run_tiny(method, rounds=3, executor=executor)
    whole = run_tiny(method, rounds=3, executor=executor, extra={"topk": {"ratio": 1.0}})
    assert digests(whole) == digests(dense)
    assert whole.history[2].bytes_up == dense.history[2].bytes_up


@pytest.mark.parametrize("codec", CODECS)
def test_inline_and_pool_have_the_same_bits(codec: str, run_tiny: RunTiny) -> None:
    inline = run_tiny("fedhpro", rounds=3, extra={codec: {}})
    pool = run_tiny("fedhpro", rounds=3, extra={codec: {}}, executor={"name": "pool", "workers": 2})
    assert digests(inline) == digests(pool)


@pytest.mark.parametrize(
    ("codec", "size"),
    [
        ("topk", lambda n: 8 * max(1, math.ceil(n / 10)) if n > 1 else 4),
        ("qsgd", lambda n: n + 4),
        ("signsgd", lambda n: math.ceil(n / 8) + 4),
    ],
)
def test_bytes_by_formula(codec: str, size: Callable[[int], int], run_tiny: RunTiny) -> None:
    run = run_tiny("fedavg", rounds=1, extra={codec: {}})
    model = run.runtime.model
    one = sum(size(p.numel()) for p in model.parameters()) + nbytes(dict(model.named_buffers()))
    assert run.history[0].bytes_up["weights"] == 4 * one


def test_residuals_outlast_rounds_that_a_client_misses(
    run_tiny: RunTiny, add: Callable[..., None]
) -> None:
    seen: dict[int, Mapping[str, Tensor]] = {}
    turns: list[int] = []

    @dataclass(frozen=True, eq=False)
    class Sees:
        """Comes before top-k, so it sees what the client kept before and its whole update."""

        @hookimpl
        def send_uploads(self, ctx: ClientContext, uploads: Payload) -> Payload:
            old = {k: v for k, v in ctx.state.items() if isinstance(v, Tensor)}
            assert old.keys() == seen.get(ctx.client, {}).keys()
            assert all(torch.equal(old[k], v) for k, v in seen.get(ctx.client, {}).items())
            turns.append(ctx.client)
            return uploads

    @dataclass(frozen=True, eq=False)
    class After:
        """Comes after top-k and notes what it kept."""

        @hookimpl
        def send_uploads(self, ctx: ClientContext, uploads: Payload) -> Payload:
            seen[ctx.client] = {k: v for k, v in ctx.state.items() if isinstance(v, Tensor)}
            return uploads

    add(sees=Sees, after=After)
    extra = {"uniform": {"fraction": 0.3}, "sees": {}, "topk": {}, "after": {}}
    run_tiny("fedavg", rounds=8, extra=extra)
    assert len(set(turns)) < len(turns) == 8
    assert all(name.startswith("topk.residual/weights/") for s in seen.values() for name in s)
    assert any(bool(t.any()) for s in seen.values() for t in s.values())


def test_batch_norm_survives_sampled_clients_with_old_residuals(run_tiny: RunTiny) -> None:
    # If variances were encoded too, old residuals would make them negative here.
    run = run_tiny(rounds=8, extra={"uniform": {"fraction": 0.5}, "topk": {}})
    assert run.state.weights["norm.running_var"].min() > 0


def test_error_feedback_changes_what_is_learnt(run_tiny: RunTiny) -> None:
    runs = [run_tiny(rounds=3, extra={"topk": {"feedback": f}}) for f in (True, False)]
    first, second = (run.history for run in runs)
    assert first[0].metrics == second[0].metrics
    assert digests(runs[0]) != digests(runs[1])


@pytest.mark.parametrize("codec", CODECS)
def test_faults_come_first_and_are_seen(codec: str, run_tiny: RunTiny) -> None:
    extra = {codec: {"scale": "one"} if codec == "signsgd" else {}, "faults": {"nan": 0.5}}
    run = run_tiny(rounds=3, extra=extra, failures={"policy": "skip"})
    assert next(iter(run.config.plugins)) == "faults"
    assert {f.kind for r in run.history for f in r.failures} == {"not_finite"}
    retried = run_tiny(rounds=3, extra=extra, failures={"policy": "retry", "attempts": 9})
    assert digests(retried)[0] == digests(run_tiny(rounds=3, extra={codec: extra[codec]}))[0]


@pytest.mark.parametrize("codec", CODECS)
def test_stale_clients_still_send_updates_of_what_the_server_sent(
    codec: str, run_tiny: RunTiny
) -> None:
    extra = {codec: {}, "faults": {"stale": 0.6}}
    run = run_tiny(rounds=4, extra=extra)
    assert any(f.kind == "stale" for r in run.history for f in r.failures)


def test_with_a_codec_it_comes_last_and_the_exchange_before_it(installed: Registry) -> None:
    plus = ["topk", "faults", "qsgd"]
    config = configs.resolve(installed, "fedhpro", flags={"data": "digits"}, plus=plus)
    names = list(config.plugins)
    assert (names[0], names[-2:]) == ("faults", ["topk", "qsgd"])
    assert names.index("exchange") < names.index("topk")


# --- majority vote -------------------------------------------------------------------------------


def vote(*updates: list[float], lr: float = 0.5, sent: float = 1.0) -> dict[str, Tensor]:
    """Return the weights after clients moved a parameter and a buffer by these updates."""
    weights: dict[str, Tensor] = {
        "classifier.bias": torch.full((3,), sent),
        "norm.running_mean": torch.zeros(3),
    }
    results = []
    for client, update in enumerate(updates):
        new: dict[str, Value] = {
            "weights": {
                "classifier.bias": sent + torch.tensor(update),
                "norm.running_mean": torch.tensor(update),
            }
        }
        results.append(
            ClientResult(
                client, 8 * (client + 1), Payload(new, "u"), {}, {}, 0.0, (), {},
                Payload({"weights": weights}, "sent"),
            )
        )  # fmt: skip
    found = SignMajority(lr=lr).aggregate(
        ctx=testing.server_context(),
        state=testing.server_state(weights=weights),
        results=iter(results),
    )
    return dict(found)


def test_a_vote_moves_parameters_and_ties_stay() -> None:
    found = vote([3.0, -0.1, 0.0], [0.2, -8.0, -1.0], [-9.0, 0.3, 1.0])
    assert found["classifier.bias"].tolist() == [1.5, 0.5, 1.0]
    # Buffers are averaged: weights 8, 16, 24 of 48.
    assert found["norm.running_mean"].tolist() == pytest.approx(
        [(3 + 0.4 - 27) / 6, (-0.1 - 16 + 0.9) / 6, (-2 + 3) / 6]
    )


@pytest.mark.parametrize("method", ["fedavg", "fedhpro"])
def test_signs_and_a_majority_vote_train(method: str, run_tiny: RunTiny) -> None:
    extra = {"sign_majority": {"lr": 0.02}, "signsgd": {"scale": "one"}}
    run = run_tiny(method, rounds=8, without=["mean"], extra=extra)
    scores = [r.scores["classifier"]["accuracy"].mean for r in run.history]
    assert scores[-1] is not None
    assert scores[-1] > 0.6
    # The votes are the signs, so encoding them changes no vote that is not a tie at zero.
    moved = run.state.weights["hidden.weight"] - run.runtime.initial["hidden.weight"]
    steps = moved / 0.02
    assert torch.allclose(steps, steps.round(), atol=1e-3)


def test_the_vote_replaces_the_mean(installed: Registry) -> None:
    plain = configs.resolve(installed, "fedavg", flags={"data": "digits"})
    voted = configs.resolve(installed, "fedavg", flags={"data": "digits"}, plus=["sign_majority"])
    swapped = ["sign_majority" if name == "mean" else name for name in plain.plugins]
    assert list(voted.plugins) == swapped


def test_a_resumed_run_has_the_same_bits(
    registry: Registry, tiny_config: Callable[..., Any], run_tiny: RunTiny, tmp_path: Path
) -> None:
    extra = {"uniform": {"fraction": 0.5}, "topk": {}, "qsgd": {}}
    whole = run_tiny("fedhpro", rounds=5, extra=extra)
    config = tiny_config(registry, "fedhpro", rounds=5, extra=extra)
    begun = Run(config, tmp_path / "r", registry=registry).rounds()
    for _ in range(3):
        next(begun)
    begun.close()
    resumed = Run.resume(tmp_path / "r", registry=registry)
    assert 0 < len(resumed.history) < 5
    resumed.run()
    assert digests(resumed) == digests(whole)
