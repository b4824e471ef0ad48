"""Models: features of the promised size, a linear classifier on top, known parameter counts."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.models import Block, Cnn, ResNet10
from torch import nn

from fedbench.errors import ConfigError
from fedbench.types import forward

MODELS = [
    pytest.param(Cnn(), (3, 32, 32), 256, id="cnn"),
    pytest.param(Cnn(width=4, feature_size=10), (1, 28, 20), 10, id="cnn, small, oblong"),
    pytest.param(ResNet10(), (3, 32, 32), 256, id="resnet10"),
    pytest.param(ResNet10(filters=2), (1, 9, 13), 16, id="resnet10, small, odd sides"),
]


@pytest.mark.parametrize(("plugin", "shape", "d"), MODELS)
def test_features_and_logits(plugin, shape, d):
    model = plugin.build(shape, 7).eval()
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    output = forward(model, x)
    assert output.features.shape == (3, d)
    assert output.logits.shape == (3, 7)
    assert isinstance(model.classifier, nn.Linear)
    assert torch.equal(output.logits, model(x))
    expected = output.features @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(output.logits, expected)
    # Features come after a ReLU.
    assert (output.features >= 0).all()


@pytest.mark.parametrize(("plugin", "shape", "d"), MODELS)
def test_every_parameter_has_a_part_in_the_loss(plugin, shape, d):
    model = plugin.build(shape, 4)
    generator = torch.Generator().manual_seed(1)
    forward(model, torch.randn(6, *shape, generator=generator)).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_size_of_the_cnn():
    d, width = 256, 32
    convolutions = (3 * 25 + 1) * width + (width * 25 + 1) * 2 * width
    head = (2 * width * 8 * 8 + 1) * d + (d + 1) * 10
    assert parameters(Cnn().build((3, 32, 32), 10)) == convolutions + head == 1_105_098


def test_the_cnn_of_mcmahan_et_al():
    assert parameters(Cnn(feature_size=512).build((1, 28, 28), 10)) == 1_663_370


@pytest.mark.parametrize("channels", [1, 3])
def test_convolutions_compute_in_channels_last(channels):
    """Also with one channel, whose strides are ambiguous; else pooling is many times slower."""
    model = Cnn(feature_size=512).build((channels, 28, 28), 10)
    model = model.to(memory_format=torch.channels_last)
    strides = []
    for layer in (model.conv1, model.conv2):
        layer.register_forward_hook(lambda _, __, y: strides.append(y.stride(1)))
    model(torch.randn(10, channels, 28, 28).contiguous(memory_format=torch.channels_last))
    assert strides == [1, 1]


def test_the_size_of_resnet10():
    # He et al., CVPR 2016, one block per stage: 1.23 M with 32 filters, 4.9 M with ResNet's own 64.
    def size(f: int) -> int:
        block = lambda a, b: 9 * a * b + 9 * b * b + 4 * b + (0 if a == b else a * b + 2 * b)  # noqa: E731
        stages = block(f, f) + block(f, 2 * f) + block(2 * f, 4 * f) + block(4 * f, 8 * f)
        return 27 * f + 2 * f + stages + (8 * f + 1) * 10

    assert parameters(ResNet10().build((3, 32, 32), 10)) == size(32) == 1_228_970
    assert parameters(ResNet10(filters=64).build((3, 32, 32), 10)) == size(64) == 4_903_242


def test_resnet10_has_ten_layers_with_weights():
    model = ResNet10().build((3, 32, 32), 10)
    main = [
        m
        for name, m in model.named_modules()
        if isinstance(m, (nn.Conv2d, nn.Linear)) and "shortcut" not in name
    ]
    assert len(main) == 10


def test_resnet10_halves_the_image_three_times():
    model = ResNet10(filters=4).build((3, 32, 32), 10).eval()
    x = torch.zeros(1, 4, 32, 32)
    sides = []
    for block in model.blocks:
        x = block(x)
        sides.append(tuple(x.shape[1:]))
    assert sides == [(4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4)]


def test_a_block_with_silent_convolutions_passes_its_input_on():
    block = Block(3, 3, 1).eval()
    nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(block(x), x.relu())


@pytest.mark.parametrize(
    ("plugin", "shape", "text"),
    [
        (Cnn(), (3, 3, 32), "model 'cnn' needs images of at least 4 x 4 pixels"),
        (Cnn(), (17,), "model 'cnn' needs images of at least 4 x 4 pixels"),
        (ResNet10(), (1, 7, 7), "model 'resnet10' needs images of at least 8 x 8 pixels"),
    ],
)
def test_an_image_that_is_too_small_or_none(plugin, shape, text):
    with pytest.raises(ConfigError) as caught:
        plugin.build(shape, 10)
    assert str(caught.value) == (
        f"{text} (channels, height, width); the inputs of this data set have shape {shape}"
    )


@pytest.mark.parametrize(("plugin", "side"), [(Cnn(width=1), 4), (ResNet10(filters=1), 8)])
def test_the_smallest_image_works(plugin, side):
    model = plugin.build((1, side, side), 2).eval()
    assert model(torch.zeros(1, 1, side, side)).shape == (1, 2)
