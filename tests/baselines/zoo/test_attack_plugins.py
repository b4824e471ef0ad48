"""Attacks in rounds: who attacks, what they send, and what is recorded of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fedbench_baselines.attack_plugins import (
    Alie,
    Backdoor,
    Gaussian,
    Ipm,
    LabelFlip,
    SignFlip,
)
from fedbench_baselines.attacks import alie_factor
from fedbench_baselines.malicious import malicious
from torch import Tensor

from fedbench import ClientContext, ConfigError, Payload, Run, Weights, testing
from fedbench.random import Streams

ATTACKS = ("label_flip", "sign_flip", "gaussian", "alie", "ipm", "backdoor")
STREAMS = Streams(0)


# --- who -----------------------------------------------------------------------------------------


def test_a_share_of_the_clients_is_malicious_and_a_larger_share_adds_to_them() -> None:
    two, four = (set(malicious(STREAMS, 20, share)) for share in (0.1, 0.2))
    assert (len(two), len(four)) == (2, 4)
    assert two < four
    assert malicious(STREAMS, 20, 0.0) == []
    assert malicious(STREAMS, 20, 1.0) == list(range(20))


def test_another_seed_has_other_malicious_clients() -> None:
    drawn = {tuple(malicious(Streams(seed), 20, 0.2)) for seed in range(5)}
    assert len(drawn) > 1


def test_clients_can_be_named() -> None:
    assert malicious(STREAMS, 20, (7, 3)) == [3, 7]


@pytest.mark.parametrize("name", ATTACKS)
def test_an_id_without_a_client_is_refused(name: str, run_tiny: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError, match="there is no client 9; ids are from 0 to 3"):
        run_tiny(extra={name: {"clients": [9]}})


@pytest.mark.parametrize("name", ATTACKS)
def test_the_run_records_who_attacked(name: str, run_tiny: Callable[..., Run]) -> None:
    fixed = {"factor": 1.0} if name in ("alie", "backdoor") else {}
    options = {"clients": [1, 2], **fixed}
    run = run_tiny(extra={name: options, "uniform": {"fraction": 0.75}}, rounds=3)
    for one in run.history:
        here = [client for client in one.clients if client in (1, 2)]
        found = {k: v for k, v in one.metrics.items() if k.startswith(f"{name}.")}
        expected = {f"{name}.client.{client}": 1.0 for client in here}
        assert found == {f"{name}.malicious": float(len(here)), **expected}


@pytest.mark.parametrize("name", ATTACKS)
def test_without_malicious_clients_nothing_changes(name: str, run_tiny: Callable[..., Run]) -> None:
    plain, attacked = run_tiny(), run_tiny(extra={name: {"clients": 0.0}})
    assert plain.summary().weights_sha256 == attacked.summary().weights_sha256


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"form": "reverse"}, [2, 1, 0]),
        ({"form": "next"}, [1, 2, 0]),
        ({"form": "pair", "source": 2, "target": 0}, [0, 1, 0]),
    ],
)
def test_labels_of_malicious_clients_are_flipped(options: Any, expected: list[int]) -> None:
    data = testing.tiny_dataset().train[torch.arange(3)]
    plugin = LabelFlip(clients=(1,), **options)

    def labels(client: int) -> list[int]:
        given = {"num_clients": 2, "num_classes": 3, "streams": STREAMS}
        return plugin.client_data(data=data, client=client, **given).labels.tolist()

    assert data.labels.tolist() == [0, 1, 2]
    assert (labels(0), labels(1)) == ([0, 1, 2], expected)


def test_a_class_that_does_not_exist_is_refused(run_tiny: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError, match=r"label_flip.target: there is no class 3"):
        run_tiny(extra={"label_flip": {"form": "pair", "target": 3, "clients": 1.0}})
    with pytest.raises(ConfigError, match=r"backdoor.target: there is no class 5"):
        run_tiny(extra={"backdoor": {"target": 5}})


# --- one client's update -------------------------------------------------------------------------


def turn() -> tuple[ClientContext, Payload, Weights, Weights]:
    """Return a malicious client's context and uploads, what it was sent, and what it trained."""
    torch.manual_seed(0)
    model = testing.client_context().model
    sent = {name: w.detach().clone() for name, w in model.state_dict().items()}
    ctx = testing.client_context(payload={"weights": sent}, client=0, num_clients=4)
    trained = {
        name: w + 0.25 * torch.randn(w.shape) if w.is_floating_point() else w + 3
        for name, w in sent.items()
    }
    uploads = {"weights": trained, "other": torch.ones(2)}
    return ctx, Payload(uploads, "the uploads"), sent, trained


def names(ctx: ClientContext) -> set[str]:
    return {name for name, _ in ctx.model.named_parameters()}


@pytest.mark.parametrize(
    ("plugin", "factor"),
    [
        (SignFlip(clients=(0,)), -1.0),
        (SignFlip(clients=(0,), scale=3.0), -3.0),
        (SignFlip(clients=(0,), scale=0.0), 0.0),
        (Backdoor(clients=(0,)), 4.0),
        (Backdoor(clients=(0, 1)), 2.0),
        (Backdoor(clients=(0,), factor=1.0), 1.0),
    ],
)
def test_the_update_is_scaled_and_all_else_is_honest(plugin: Any, factor: float) -> None:
    ctx, uploads, sent, trained = turn()
    found = plugin.send_uploads(ctx=ctx, uploads=uploads)
    assert found["other"] is uploads["other"]
    for name, w in found["weights"].items():
        if name in names(ctx):
            expected = sent[name] + factor * (trained[name] - sent[name])
            assert torch.allclose(w, expected, atol=1e-6)
        else:
            assert torch.equal(w, trained[name])


@pytest.mark.parametrize("plugin", [SignFlip(clients=(1,)), Gaussian(clients=()), Backdoor((3,))])
def test_honest_clients_send_what_they_trained(plugin: Any) -> None:
    ctx, uploads, _, _ = turn()
    assert plugin.send_uploads(ctx=ctx, uploads=uploads) is uploads


def spread(found: Any, sent: Weights, which: set[str]) -> float:
    return float(torch.cat([(found["weights"][n] - sent[n]).flatten() for n in which]).std())


def test_noise_has_the_updates_own_spread_or_a_given_one() -> None:
    ctx, uploads, sent, trained = turn()
    own = Gaussian(clients=(0,)).send_uploads(ctx=ctx, uploads=uploads)
    wide = Gaussian(clients=(0,), sigma=200.0).send_uploads(ctx=ctx, uploads=uploads)
    none = Gaussian(clients=(0,), sigma=0.0).send_uploads(ctx=ctx, uploads=uploads)
    assert spread(own, sent, names(ctx)) == pytest.approx(0.25, rel=0.15)
    assert spread(wide, sent, names(ctx)) == pytest.approx(200.0, rel=0.15)
    for name in names(ctx):
        assert not torch.equal(own["weights"][name], trained[name])
        assert torch.equal(none["weights"][name], sent[name])


# --- colluding clients ---------------------------------------------------------------------------


def sent_by(plugin: Any, updates: list[float], cohort: tuple[int, ...] = (0, 1, 2, 3)) -> Tensor:
    """Return every client's update of the classifier's bias, which are all the same number."""
    model = testing.client_context().model
    base = {name: w.detach() for name, w in model.state_dict().items()}
    results = [
        testing.client_result(
            client=client,
            uploads={"weights": {**base, "classifier.bias": base["classifier.bias"] + d}},
            sent={"weights": base},
        )
        for client, d in zip(cohort, updates, strict=True)
    ]
    ctx = testing.server_context(client_sizes=(9,) * 8, cohort=cohort)
    state = testing.server_state(weights=base)
    found = list(plugin.receive_uploads(ctx=ctx, state=state, results=iter(results)))
    assert [r.client for r in found] == list(cohort)
    return torch.stack(
        [(r.uploads.weights()["classifier.bias"] - base["classifier.bias"])[0] for r in found]
    )


def test_alie_sends_the_mean_less_a_few_deviations_of_the_malicious() -> None:
    found = sent_by(Alie(clients=(1, 2), factor=1.5), [9.0, 1.0, 3.0, -9.0])
    assert torch.allclose(found, torch.tensor([9.0, 0.5, 0.5, -9.0]))


def test_alie_may_know_the_honest_clients() -> None:
    plugin = Alie(clients=(1, 2), factor=1.0, knows="honest")
    found = sent_by(plugin, [1.0, 50.0, 50.0, 3.0])
    assert torch.allclose(found[1:3], torch.tensor(2.0 - 2.0**0.5).repeat(2))


def test_alies_default_factor_is_the_rounds() -> None:
    updates = [0.0, 1.0, 3.0, 0.0, 0.0]
    expected = 2.0 - alie_factor(5, 2)
    found = sent_by(Alie(clients=(1, 2)), updates, cohort=(0, 1, 2, 3, 4))
    assert found[1] == pytest.approx(expected, abs=1e-6)


def test_one_malicious_client_by_itself_sends_its_own_update() -> None:
    found = sent_by(Alie(clients=(1,), factor=1.5), [9.0, 1.0, 3.0, -9.0])
    assert torch.allclose(found, torch.tensor([9.0, 1.0, 3.0, -9.0]))


def test_ipm_reverses_the_mean_of_the_honest() -> None:
    found = sent_by(Ipm(clients=(1, 2), epsilon=0.5), [1.0, 7.0, 7.0, 3.0])
    assert torch.allclose(found, torch.tensor([1.0, -1.0, -1.0, 3.0]))


@pytest.mark.parametrize("plugin", [Alie(clients=(7,), factor=1.0), Ipm(clients=(7,))])
def test_a_round_without_malicious_clients_is_passed_on_one_by_one(plugin: Any) -> None:
    read = []

    def results() -> Any:
        for client in (0, 1):
            read.append(client)
            yield testing.client_result(client=client)

    ctx = testing.server_context(client_sizes=(9,) * 8, cohort=(0, 1))
    given = {"ctx": ctx, "state": testing.server_state(), "results": results()}
    next(plugin.receive_uploads(**given))
    assert read == [0]


def test_without_an_honest_client_ipm_sends_what_was_trained() -> None:
    assert sent_by(Ipm(clients=1.0), [1.0, 2.0, 3.0, 4.0]).tolist() == pytest.approx([1, 2, 3, 4])


# --- the backdoor --------------------------------------------------------------------------------


def test_a_share_of_the_images_is_stamped_and_relabelled() -> None:
    data = testing.tiny_dataset().train[torch.arange(20)]
    plugin = Backdoor(clients=(1,), target=2, share=0.3, size=2, value=255)
    given = {"num_clients": 2, "streams": STREAMS}
    found = plugin.client_data(data=data, client=1, rng=np.random.default_rng(0), **given)
    corner = (found.inputs[..., -2:, -2:] == 255).flatten(1).all(1)
    assert int(corner.sum()) == 6
    assert (found.labels[corner] == 2).all()
    assert torch.equal(found.labels[~corner], data.labels[~corner])
    assert torch.equal(found.inputs[..., :-2, :], data.inputs[..., :-2, :])
    honest = plugin.client_data(data=data, client=0, rng=np.random.default_rng(0), **given)
    assert honest is data


def test_success_is_measured_on_stamped_images_of_other_classes() -> None:
    data = testing.tiny_dataset()
    extra = Backdoor(target=1).prepare_data(data=data).extra["backdoor"]
    others = data.test.labels != 1
    assert len(extra) == int(others.sum()) == 16
    assert (extra.labels == 1).all()
    assert (extra.inputs[..., -3:, -3:] == 255).all()
    assert torch.equal(extra.inputs[..., :-3, :], data.test.inputs[others][..., :-3, :])


def test_a_backdoor_is_learned_and_scored_beside_the_domains(
    run_tiny: Callable[..., Run],
) -> None:
    options = {"clients": 1.0, "share": 0.5, "factor": 1.0}
    run = run_tiny(extra={"backdoor": options, "sgd": {"lr": 0.3, "epochs": 5}}, rounds=4)
    last = run.history[-1]
    success = last.extra_scores["classifier"]["accuracy"]["backdoor"]
    assert success == 1.0
    assert set(last.scores["classifier"]["accuracy"].domains) == {"ink", "chalk"}
    assert run.result()["extra"] == {"backdoor": success}


def test_only_images_can_be_stamped(run_tiny: Callable[..., Run]) -> None:
    with pytest.raises(ConfigError, match=r"stamps images of type uint8.* are float32 of shape"):
        run_tiny(data={"name": "tiny", "form": "numbers"}, extra={"backdoor": {}})


# --- in runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [{"topk": {}}, {"qsgd": {}}])
def test_colluding_clients_see_decoded_updates(
    codec: dict[str, Any], run_tiny: Callable[..., Run]
) -> None:
    for attack in ({"ipm": {"clients": 0.5}}, {"alie": {"clients": 0.5, "factor": 1.0}}):
        run = run_tiny(extra={**codec, **attack})
        assert run.summary().weights_sha256 != run_tiny(extra=codec).summary().weights_sha256


def test_the_median_withstands_one_client_that_reverses_the_mean(
    run_tiny: Callable[..., Run],
) -> None:
    loud = {"sign_flip": {"clients": [1], "scale": 20.0}, "sgd": {"epochs": 5, "lr": 0.1}}

    def accuracy(method: str) -> float:
        return run_tiny(method, extra=loud, rounds=4).summary().accuracy.mean

    assert accuracy("median") > accuracy("fedavg")
