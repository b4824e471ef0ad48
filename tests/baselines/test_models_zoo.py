"""Models of torchvision and timm: the last layer is replaced, the rest is as published."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from urllib.error import URLError

import pytest
import torch
from fedbench_baselines.models import Timm, Torchvision
from fedbench_baselines.models.zoo import SIDE, prepared, without_head
from torch import Tensor, nn
from torchvision import models

from fedbench import Run, resolve
from fedbench.errors import ConfigError, TemporaryError
from fedbench.store import fingerprint
from fedbench.types import forward

FAMILIES = {
    name.split("_")[0].rstrip("0123456789x"): name
    for name in sorted(models.list_models(module=models), reverse=True)
}
"""Family -> the first of its architectures in alphabetical order."""

SMALL = "squeezenet1_1"
needs_timm = pytest.mark.skipif(not importlib.util.find_spec("timm"), reason="no timm")


def images(n: int, *shape: int) -> Tensor:
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(0))


def test_the_families_are_those_of_torchvision():
    assert {"alexnet", "convnext", "densenet", "efficientnet", "googlenet", "inception"} < {
        *FAMILIES
    }
    assert {"maxvit", "mnasnet", "mobilenet", "regnet", "resnet", "resnext"} < {*FAMILIES}
    assert {"shufflenet", "squeezenet", "swin", "vgg", "vit", "wide"} < {*FAMILIES}


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(name, marks=[] if name == "resnet" else [pytest.mark.long])
        for name in sorted(set(FAMILIES) - {"regnet"})
    ],
)
def test_every_family_of_torchvision_ends_in_features(family):
    name = FAMILIES[family]
    more = {"init_weights": False} if family in ("googlenet", "inception") else {}
    with torch.device("meta"):  # shapes alone
        whole = models.get_model(name, weights=None, **more)
        linear = [layer for layer in whole.modules() if isinstance(layer, nn.Linear)]
        d = linear[-1].in_features if linear else 512
        weights = sum(1 for _ in whole.parameters())
        network = without_head(whole).train()
        features = network(torch.zeros(2, 3, 299 if family == "inception" else SIDE, SIDE))
    assert features.shape == (2, d)
    assert sum(1 for _ in network.parameters()) < weights


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "channels"),
    [(SMALL, 1), ("mobilenet_v3_small", 3), ("regnet_y_400mf", 1), ("shufflenet_v2_x0_5", 3)],
)
def test_a_model_of_torchvision_trains_on_small_images(name, channels):
    model = Torchvision(architecture=name).build((channels, 32, 32), 5)
    output = forward(model, images(4, channels, 32, 32))
    assert output.logits.shape == (4, 5)
    output.logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_removed(name):
    with torch.device("meta"):
        model = Torchvision(architecture=name).build((3, 96, 96), 5).train()
        assert model(torch.zeros(2, 3, 96, 96)).shape == (2, 5)
    assert not [key for key in model.state_dict() if "aux" in key.lower()]


def test_the_features_are_what_went_into_the_last_layer():
    torch.manual_seed(0)
    whole = models.resnet18(weights=None).eval()
    model = Torchvision().build((3, 64, 64), 1000).eval()
    model.network.load_state_dict(whole.state_dict(), strict=False)
    model.classifier.load_state_dict(whole.fc.state_dict())
    x = images(2, 3, 64, 64)
    assert torch.equal(model(x), whole(x))


def test_grey_images_are_repeated_and_small_ones_are_resized():
    x = images(2, 1, 8, 8)
    assert prepared(x, None, 1) is x
    large = prepared(x, 16, 3)
    assert large.shape == (2, 3, 16, 16)
    assert torch.equal(large[:, 0], large[:, 2])
    assert torch.equal(prepared(torch.ones(1, 3, 8, 12), 16, 1), torch.ones(1, 3, 16, 16))
    model = Torchvision(architecture="alexnet", size=64).build((1, 8, 8), 5)
    assert model(x).shape == (2, 5)


@pytest.mark.parametrize(
    ("options", "shape", "text"),
    [
        (
            {"architecture": "resnet19"},
            (3, 32, 32),
            "model 'torchvision': no architecture 'resnet19' (did you mean 'resnet18'?)",
        ),
        (
            {"weights": "IMAGENET1K_V3"},
            (3, 32, 32),
            "model 'torchvision': resnet18 has no weights 'IMAGENET1K_V3' (did you mean "
            "'IMAGENET1K_V1'?)",
        ),
        (
            {},
            (12,),
            "model 'torchvision' needs images of at least 1 x 1 pixels (channels, height, width); "
            "the inputs of this data set have shape (12,)",
        ),
        (
            {},
            (4, 32, 32),
            "model 'torchvision' needs images with 1 or 3 channels; the inputs of this data set "
            "have shape (4, 32, 32)",
        ),
        (
            {"architecture": "vit_b_32"},
            (3, 32, 32),
            "model 'torchvision': vit_b_32 cannot take images of shape (3, 32, 32) (Wrong image "
            "height! Expected 224 but got 32!): set model.size=224, which resizes them",
        ),
        (
            {"architecture": "vit_b_32", "size": 64},
            (3, 32, 32),
            "model 'torchvision': vit_b_32 cannot take images of shape (3, 32, 32) with "
            "model.size=64 (Wrong image height! Expected 224 but got 64!): change it",
        ),
    ],
)
def test_what_cannot_be_built(options, shape, text):
    with pytest.raises(ConfigError) as caught:
        Torchvision(**options).build(shape, 5)
    assert str(caught.value) == text


def test_images_that_are_too_small_are_refused_before_round_1(registry, tiny_config):
    config = tiny_config(registry, model={"name": "torchvision", "architecture": "alexnet"})
    with pytest.raises(ConfigError) as caught:
        Run(config, registry=registry).run()
    assert "\n" not in str(caught.value)
    assert "alexnet cannot take images of shape (1, 8, 8)" in str(caught.value)
    assert str(caught.value).endswith(": set model.size=224, which resizes them")


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache for torch's downloads."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def test_pretrained_weights_from_torchs_cache_need_no_network(cache):
    url = models.get_model_weights(SMALL)["IMAGENET1K_V1"].url
    torch.manual_seed(5)
    whole = models.get_model(SMALL, weights=None)
    torch.save(whole.state_dict(), cache / url.rpartition("/")[2])
    model = Torchvision(architecture=SMALL, weights="IMAGENET1K_V1").build((3, 32, 32), 5)
    assert model.classifier.out_features == 5
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, whole.state_dict()[name]), name


def test_without_a_network_the_error_says_where_the_weights_belong(cache, monkeypatch):
    def refuse(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(TemporaryError) as caught:
        Torchvision(architecture=SMALL, weights="DEFAULT").build((3, 32, 32), 5)
    assert str(caught.value) == (
        "model 'torchvision': cannot get the weights DEFAULT of squeezenet1_1 (<urlopen error no "
        "route to host>): without a network, put the file https://download.pytorch.org/models/"
        f"squeezenet1_1-b8a52dc0.pth into {cache}, or set model.weights=null"
    )


def test_without_timm_the_config_says_how_to_get_it(registry, tiny_config, monkeypatch):
    monkeypatch.setattr(
        "fedbench_baselines.models.zoo.importlib", SimpleNamespace(util=importlib.util)
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs timm: pip install 'fedbench-toolkit\[timm\]'$"):
        resolve(registry, "fedavg", card="digits", flags={"model": "timm"})


@needs_timm
@pytest.mark.parametrize(
    ("name", "channels"), [("test_resnet", 1), ("test_convnext", 3), ("test_vit", 1)]
)
def test_a_model_of_timm_trains(name, channels):
    model = Timm(architecture=name, size=160).build((channels, 32, 32), 5)
    output = forward(model, images(2, channels, 32, 32))
    assert output.features.shape == (2, model.classifier.in_features)
    output.logits.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@needs_timm
@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"architecture": "test_resnets"},
            "model 'timm': no architecture 'test_resnets' (did you mean 'test_resnet'?)",
        ),
        (
            {"architecture": "?"},
            "model 'timm': no architecture '?'; timm.list_models() lists them",
        ),
        (
            {"architecture": "vit_tiny_patch16_384"},
            "model 'timm': vit_tiny_patch16_384 cannot take images of shape (3, 32, 32) (Input "
            "height (32) doesn't match model (384).): set model.size=384, which resizes them",
        ),
        (
            {"architecture": "resnet10t.no_tag", "pretrained": True},
            "model 'timm': there are no pretrained weights for resnet10t.no_tag: set "
            "model.pretrained=false",
        ),
    ],
)
def test_what_timm_cannot_build(options, text):
    with pytest.raises(ConfigError) as caught:
        Timm(**options).build((3, 32, 32), 5)
    assert str(caught.value) == text


@needs_timm
def test_without_a_network_timms_error_is_one_line(monkeypatch):
    import timm

    def refuse(*_, **__):
        raise OSError("no\nroute")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(TemporaryError) as caught:
        Timm(architecture="test_resnet", pretrained=True).build((3, 32, 32), 5)
    assert str(caught.value) == (
        "model 'timm': cannot get the pretrained weights of test_resnet (no route): download them "
        "once with a network, into the cache that HF_HOME names, or set model.pretrained=false"
    )


@needs_timm
def test_the_version_of_timm_counts_for_its_models_only(registry, monkeypatch):
    def taken(model: str) -> dict[str, str]:
        config = resolve(registry, "fedavg", card="digits", flags={"model": model})
        return fingerprint.of_run(registry, config)

    before = taken("timm")
    assert "timm" not in taken("cnn")
    monkeypatch.setattr(fingerprint, "version", lambda name: f"{name} 0.1")
    assert fingerprint.changes(before, taken("timm")) == [
        f"timm: {before['timm']} then, timm 0.1 now"
    ]


def test_neither_package_is_imported_before_it_is_used():
    pytest.importorskip("timm")  # its class looks for the package
    code = (
        "import sys; from fedbench import discover; registry = discover()\n"
        "[registry.get('model', name).value() for name in registry.names('model')]\n"
        "print(sorted({'torchvision', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
