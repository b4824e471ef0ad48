"""Rules for data sets, models and metrics."""

from __future__ import annotations

import math
import tempfile
import unittest
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..store.files import default_data_root
from ..types import Dataset, Examples, forward
from .breach import Breach
from .outcome import Setting, difference, failed, shuffled
from .rule import rule
from .subject import Subject, build
from .tiny import SHAPES, TinyData
from .watch import fingerprint

SURE = 20.0
"""How far logits of predictions without doubt lie apart."""

# Data sets


def _loaded(subject: Subject) -> Dataset:
    """Load the data set from the user's data folder.

    Raises:
        unittest.SkipTest: when it raises a `ConfigError`, which the rule `missing-files` checks.
    """
    made = build(subject.cls, subject.options)
    try:
        found: Dataset = made.load(default_data_root())
    except ConfigError as error:
        raise unittest.SkipTest(str(error)) from error
    except Exception as error:
        raise failed(error) from error
    return found


@rule("dataset")
def missing_files(subject: Subject) -> None:
    """With an empty data folder it loads, or says in one line what is missing.

    Mend: raise a `ConfigError` with the name of the data set and of the missing file.
    """
    with tempfile.TemporaryDirectory(prefix="fedbench-kit-") as folder:
        try:
            build(subject.cls, subject.options).load(Path(folder))
        except ConfigError as error:
            if "\n" in str(error) or subject.name not in str(error):
                what = f"the error is not one line that names the data set: {error}"
                raise Breach(what) from error
        except Exception as error:
            raise failed(error) from error


@rule("dataset")
def dataset_contents(subject: Subject) -> None:
    """Both splits have examples, valid labels and domains and finite inputs, the same at each load.

    Mend: return a `Dataset` with int64 `labels` (N,) and `domains` (N,), both counted from 0, and
    with `inputs` (N, ...) that are uint8, int64 or float; draw random numbers from a seeded
    generator.
    """
    data = _loaded(subject)
    for what, names in (("classes", data.classes), ("domains", data.domains)):
        if not names or len(set(names)) < len(names):
            raise Breach(f"{what} are not distinct names: {names}")
    if len(set(data.clients)) < len(data.clients):
        raise Breach(f"clients are not distinct names: {data.clients}")
    if bool(data.clients) != (data.train.clients is not None):
        raise Breach("clients need both names, in the Dataset, and indices, in its train examples")
    for split, part in (("train", data.train), ("test", data.test)):
        _split(data, part, split)
    for number, name in enumerate(data.domains):
        if not bool((data.train.domains == number).any()):
            raise Breach(f"domain {name!r} has no training example")
    with shuffled(1):
        again = _loaded(subject)
    if fingerprint(data.train.labels) != fingerprint(again.train.labels):
        raise Breach("two loads give different labels")
    for name, value in vars(data).items():
        if fingerprint(value) != fingerprint(vars(again)[name]):
            raise Breach(f"two loads give different values of {name}")


def _split(data: Dataset, part: Examples, split: str) -> None:
    n = len(part)
    if n == 0:
        raise Breach("it is empty", split)
    for what, values, names in (
        ("labels", part.labels, data.classes),
        ("domains", part.domains, data.domains),
        ("clients", part.clients, data.clients),
    ):
        if values is None:
            continue
        if values.dtype != torch.int64 or values.shape != (n,):
            dtype = str(values.dtype).removeprefix("torch.")
            raise Breach(f"{what} are {dtype} {tuple(values.shape)}, not int64 ({n},)", split)
        if not 0 <= int(values.min()) <= int(values.max()) < len(names):
            raise Breach(f"{what} are not all from 0 to {len(names) - 1}", split)
    if len(part.inputs) != n:
        raise Breach(f"there are {len(part.inputs)} inputs and {n} labels", split)
    if part.inputs.is_floating_point() and not bool(torch.isfinite(part.inputs).all()):
        raise Breach("inputs have NaN or infinite values", split)


@rule("dataset")
def dataset_round(subject: Subject) -> None:
    """A round on it finishes without an error, with a tiny model on the raw inputs.

    Mend: read the error; the usual cause is the shape or the type of the inputs.
    """
    _loaded(subject)
    subject.must(Setting("inline", partition="odd", rounds=1))


# Models


def _fitting(subject: Subject) -> TinyData:
    """Return the kit's data in the first form that the model accepts."""
    model = build(subject.cls, subject.options)
    refusals = []
    for form in ("rgb", "grey", "ids", "numbers"):
        try:
            model.build(SHAPES[form], 3)
        except ConfigError as error:
            refusals.append(str(error))
            continue
        except Exception as error:
            where = f"build({SHAPES[form]}, 3)"
            mend = "raise ConfigError for inputs that the model does not accept"
            raise Breach(f"{type(error).__name__}: {error}", where, mend) from error
        return TinyData(form=form)
    raise Breach(
        f"it accepts none of the kit's inputs {list(SHAPES.values())}: {refusals[0]}",
        "build(input_shape, num_classes)",
        "let it accept images (3, 32, 32) or (1, 8, 8), ids (12,) or numbers (20,)",
    )


def _made(subject: Subject, classes: int = 3) -> tuple[nn.Module, Tensor]:
    """Return the model, built from a fixed seed, and a batch of four inputs."""
    data = _fitting(subject)
    raw = data.load(Path()).train.inputs[:4]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = build(subject.cls, subject.options).build(SHAPES[data.form], classes)
    return made, raw.float() / 255 if raw.dtype == torch.uint8 else raw


@rule("model")
def model_parts(subject: Subject) -> None:
    """It has `features` (B, d) and a linear `classifier` from d to the number of classes.

    Mend: set `self.classifier = nn.Linear(d, num_classes)`, and let `features(x)` return the
    classifier's input.
    """
    for classes in (3, 1):
        model, inputs = _made(subject, classes)
        classifier = getattr(model, "classifier", None)
        if not isinstance(classifier, nn.Linear):
            raise Breach(f"`classifier` is {type(classifier).__name__}, not nn.Linear")
        if classifier.out_features != classes:
            raise Breach(f"`classifier` has {classifier.out_features} outputs, not {classes}")
        try:
            output = forward(model, inputs)
        except Exception as error:
            raise Breach(f"{type(error).__name__}: {error}", "features(x)") from error
        wanted = (len(inputs), classifier.in_features)
        if tuple(output.features.shape) != wanted:
            raise Breach(f"features have shape {tuple(output.features.shape)}, not {wanted}")
        if not bool(torch.isfinite(output.logits).all()):
            raise Breach("logits have NaN or infinite values")


@rule("model")
def model_trains(subject: Subject) -> None:
    """Every trainable parameter gets a gradient, and a batch of a single example can be trained on.

    Mend: leave out layers that `features` does not use, or freeze them by `requires_grad_(False)`;
    batch norm over a single value can't train, so skip it for a batch of one. On smaller inputs
    than the kit's a model may need more: a run with such batches is refused before round 1.
    """
    model, inputs = _made(subject)
    for batch in (inputs, inputs[:1]):
        model.zero_grad(set_to_none=True)
        try:
            forward(model, batch).logits.square().sum().backward()
        except Exception as error:
            raise Breach(f"{type(error).__name__}: {error}", f"a batch of {len(batch)}") from error
        for name, parameter in model.named_parameters():
            if len(batch) > 1 and parameter.requires_grad and parameter.grad is None:
                raise Breach(f"parameter {name!r} gets no gradient")


@rule("model")
def model_is_its_state(subject: Subject) -> None:
    """The seed and the `state_dict` determine a model completely, and no two models share memory.

    Mend: initialise with torch's global generator, register what lasts as parameters or buffers,
    and create layers in `__init__`, not in the class body or the module.
    """
    (one, inputs), (two, _) = _made(subject), _made(subject)
    if fingerprint(one.state_dict()) != fingerprint(two.state_dict()):
        raise Breach("the same seed gives two different models")
    mine = {t.data_ptr() for t in one.state_dict().values() if t.numel()}
    for name, tensor in two.state_dict().items():
        if tensor.numel() and tensor.data_ptr() in mine:
            raise Breach(f"two models share the memory of {name!r}")
    forward(one, inputs)
    two.load_state_dict(one.state_dict())
    with torch.no_grad():
        a, b = (forward(model.eval(), inputs).logits for model in (one, two))
    if not torch.equal(a, b):
        raise Breach("a model that loaded another's state_dict gives different logits")


@rule("model")
def model_evaluates_one_by_one(subject: Subject) -> None:
    """In evaluation mode an example's logits don't depend on the others in its batch.

    Mend: use layers that respect `eval()`, such as nn.BatchNorm2d, instead of computing statistics
    over the batch.
    """
    model, inputs = _made(subject)
    model.eval()
    with torch.no_grad():
        whole = forward(model, inputs).logits
        alone = torch.cat([forward(model, x[None]).logits for x in inputs])
    if not torch.allclose(whole, alone, rtol=1e-3, atol=1e-4):
        raise Breach(f"logits differ by up to {float((whole - alone).abs().max()):g}")


@rule("model")
def model_round(subject: Subject) -> None:
    """A round with it gives the same bits in this process and in worker processes.

    Mend: as for `model-is-its-state`; draw random numbers (dropout) from torch's global generator.
    """
    few = Setting("inline", data=(("form", _fitting(subject).form), ("examples", 6)), rounds=1)
    plain = subject.must(few)
    found = difference(plain, subject.must(replace(few, executor="pool", workers=2)))
    if found:
        raise Breach(f"a run in a pool of 2 workers differs from the plain one: {found}")


# Metrics


def _scored(subject: Subject, scores: Tensor, labels: Tensor, where: str) -> dict[int, float]:
    """Return the metric's number under the key 0, or class -> number where there is one."""
    metric = build(subject.cls, subject.options)
    before = fingerprint([scores, labels])
    try:
        value = metric(scores, labels)
    except Exception as error:
        raise Breach(f"{type(error).__name__}: {error}", where) from error
    if fingerprint([scores, labels]) != before:
        raise Breach("it writes into its arguments", where)
    found = dict(enumerate(value if isinstance(value, list) else [value]))
    if isinstance(value, list):
        found = {c: v for c, v in found.items() if v is not None}
    if not all(isinstance(v, float) for v in found.values()):
        raise Breach(f"it returns {value!r}, not a float or a list of floats and None", where)
    if isinstance(value, list) and len(value) != scores.shape[1]:
        raise Breach(f"it returns {len(value)} numbers for {scores.shape[1]} classes", where)
    if not all(map(math.isfinite, found.values())):
        raise Breach(f"it returns {value}", where)
    return found


@rule("metric")
def metric_value(subject: Subject) -> None:
    """For any scores it returns a finite float, or one per class, and leaves its arguments alone.

    Mend: guard divisions by the number of examples of a class (`None` for a class that has none),
    compute in float64, and return `float(...)`.
    """
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(12, 3, generator=generator)
    labels = torch.arange(12) % 3
    for where, s, y in (
        ("12 examples, 3 classes", scores, labels),
        ("one example", scores[:1], labels[:1]),
        ("a class without an example", scores, labels % 2),
        ("one class", scores[:, :1], labels * 0),
        ("scores of 1000", 1000 * scores, labels),
        ("equal scores", scores * 0, labels),
    ):
        first = _scored(subject, s, y, where)
        if first != _scored(subject, s, y, where):
            raise Breach("the same scores give two different values", where)
        flipped = _scored(subject, s.flip(0), y.flip(0), where)
        if first.keys() != flipped.keys() or any(
            abs(a - flipped[c]) > 1e-6 * max(1, abs(a)) for c, a in first.items()
        ):
            raise Breach("the order of the examples changes the value", where)


@rule("metric")
def metric_direction(subject: Subject) -> None:
    """`higher_is_better` says which of perfect and wrong predictions score higher.

    Mend: set `higher_is_better` to the other value.
    """
    higher = subject.entry.value.higher_is_better
    labels = torch.arange(12) % 3
    right = SURE * nn.functional.one_hot(labels).float()
    best = sum(_scored(subject, right, labels, "perfect predictions").values())
    worst = sum(_scored(subject, -right, labels, "wrong predictions").values())
    if best < worst if higher else best > worst:
        raise Breach(f"perfect predictions give {best:g}, wrong ones {worst:g}")


@rule("metric")
def metric_unit(subject: Subject) -> None:
    """A metric whose `unit` is `percent` returns fractions between 0 and 1.

    Mend: return 0.5 for 50 %, or set `unit` to `"plain"`.
    """
    labels = torch.arange(12) % 3
    right = SURE * nn.functional.one_hot(labels).float()
    for where, scores in (("perfect predictions", right), ("wrong predictions", -right)):
        for found in _scored(subject, scores, labels, where).values():
            if subject.entry.value.unit == "percent" and not -1e-9 <= found <= 1 + 1e-9:
                shown = f"it returns {found:g}, which would be shown as {100 * found:g} %"
                raise Breach(shown, where)


@rule("metric")
def metric_round(subject: Subject) -> None:
    """The scores of every round contain it.

    Mend: read the error; a metric is called with scores (N, C) and labels (N,) of one domain.
    """
    for result in subject.must(Setting("inline")).rounds:
        for name, metrics in result.scores.items():
            if subject.name not in metrics:
                raise Breach("it is not in the scores", f"round {result.round}, {name}")
