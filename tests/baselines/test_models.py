"""Models: features of the promised size, a linear classifier on top, known parameter counts."""

from __future__ import annotations

import pytest
import torch
from fedbench_baselines.models import CharLstm, Cnn, LeNet5, Logistic, Mlp, ResNet10, ResNet18
from fedbench_baselines.models.resnet import Block
from torch import Tensor, nn
from torch.nn import functional as F

from fedbench.errors import ConfigError
from fedbench.types import forward

MODELS = [
    pytest.param(Logistic(), (1, 8, 8), 64, id="logistic"),
    pytest.param(Logistic(), (20,), 20, id="logistic, numbers"),
    pytest.param(Mlp(), (1, 28, 28), 200, id="mlp"),
    pytest.param(Mlp(hidden=(9, 8, 7)), (20,), 7, id="mlp, three layers, numbers"),
    pytest.param(Cnn(), (3, 32, 32), 256, id="cnn"),
    pytest.param(Cnn(width=4, feature_size=10), (1, 28, 20), 10, id="cnn, small, oblong"),
    pytest.param(LeNet5(), (3, 32, 32), 84, id="lenet5"),
    pytest.param(LeNet5(), (1, 7, 45), 84, id="lenet5, oblong, odd sides"),
    pytest.param(ResNet10(), (3, 32, 32), 256, id="resnet10"),
    pytest.param(ResNet10(filters=2), (1, 9, 13), 16, id="resnet10, small, odd sides"),
    pytest.param(ResNet10(filters=4, norm="group"), (3, 16, 16), 32, id="resnet10, group norm"),
    pytest.param(ResNet10(filters=4, norm="none"), (3, 16, 16), 32, id="resnet10, no norm"),
    pytest.param(ResNet18(filters=3), (1, 16, 16), 24, id="resnet18, odd filters"),
    pytest.param(ResNet18(filters=3, norm="group"), (1, 16, 16), 24, id="resnet18, group norm"),
    pytest.param(CharLstm(feature_size=16), (7,), 16, id="char_lstm"),
]


def examples(plugin: object, n: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return n inputs that the model takes: character ids, or numbers."""
    generator = torch.Generator().manual_seed(seed)
    if isinstance(plugin, CharLstm):
        return torch.randint(plugin.vocabulary, (n, *shape), generator=generator)
    return torch.randn(n, *shape, generator=generator)


@pytest.mark.parametrize(("plugin", "shape", "d"), MODELS)
def test_features_and_logits(plugin, shape, d):
    model = plugin.build(shape, 7).eval()
    x = examples(plugin, 3, shape)
    output = forward(model, x)
    assert output.features.shape == (3, d)
    assert output.logits.shape == (3, 7)
    assert isinstance(model.classifier, nn.Linear)
    assert torch.equal(output.logits, model(x))
    expected = output.features @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(output.logits, expected)
    if not isinstance(plugin, (Logistic, CharLstm)):  # after a ReLU
        assert (output.features >= 0).all()


@pytest.mark.parametrize(("plugin", "shape", "d"), MODELS)
def test_every_parameter_has_a_part_in_the_loss(plugin, shape, d):
    model = plugin.build(shape, 4)
    forward(model, examples(plugin, 6, shape, 1)).logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize(("plugin", "shape", "d"), MODELS)
def test_a_step_against_the_gradient_lowers_the_loss(plugin, shape, d):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = plugin.build(shape, 4)
    x, y = examples(plugin, 8, shape), torch.arange(8) % 4
    before = F.cross_entropy(model(x), y)
    before.backward()
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.01 * p.grad
    assert F.cross_entropy(model(x), y) < before
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())


def parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_the_size_of_the_cnn():
    d, width = 256, 32
    convolutions = (3 * 25 + 1) * width + (width * 25 + 1) * 2 * width
    head = (2 * width * 8 * 8 + 1) * d + (d + 1) * 10
    assert parameters(Cnn().build((3, 32, 32), 10)) == convolutions + head == 1_105_098


def test_the_cnn_of_mcmahan_et_al():
    assert parameters(Cnn(feature_size=512).build((1, 28, 28), 10)) == 1_663_370


@pytest.mark.parametrize(
    ("plugin", "shape", "classes", "size"),
    [
        pytest.param(Logistic(), (1, 28, 28), 10, 7_850, id="logistic on MNIST"),
        pytest.param(Logistic(), (60,), 10, 610, id="logistic on Synthetic(alpha, beta)"),
        pytest.param(Mlp(), (1, 28, 28), 10, 199_210, id="the 2NN of McMahan et al."),
        pytest.param(LeNet5(), (1, 28, 28), 10, 61_706, id="LeNet-5 on MNIST"),
        pytest.param(LeNet5(), (3, 32, 32), 10, 62_006, id="LeNet-5 on CIFAR-10, NIID-Bench"),
        pytest.param(ResNet18(), (3, 32, 32), 10, 11_173_962, id="ResNet-18 on CIFAR-10"),
        pytest.param(ResNet18(), (3, 32, 32), 100, 11_220_132, id="ResNet-18 on CIFAR-100"),
        pytest.param(ResNet18(norm="group"), (3, 32, 32), 10, 11_173_962, id="with group norm"),
    ],
)
def test_sizes_that_are_published(plugin, shape, classes, size):
    assert parameters(plugin.build(shape, classes)) == size


def test_the_lstm_of_the_shakespeare_task():
    # 820,522 with 90 characters (Reddi et al., ICLR 2021), where each layer has one bias per gate.
    second_biases = 2 * 4 * 256
    assert parameters(CharLstm(vocabulary=90).build((80,), 90)) == 820_522 + second_biases


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


@pytest.mark.parametrize(("plugin", "layers"), [(ResNet10(), 10), (ResNet18(filters=4), 18)])
def test_a_resnet_has_as_many_layers_with_weights_as_it_says(plugin, layers):
    model = plugin.build((3, 32, 32), 10)
    main = [
        m
        for name, m in model.named_modules()
        if isinstance(m, (nn.Conv2d, nn.Linear)) and "shortcut" not in name
    ]
    assert len(main) == layers


@pytest.mark.parametrize(("plugin", "depth"), [(ResNet10(filters=4), 1), (ResNet18(filters=4), 2)])
def test_a_resnet_halves_the_image_three_times(plugin, depth):
    model = plugin.build((3, 32, 32), 10).eval()
    x = torch.zeros(1, 4, 32, 32)
    sides = []
    for block in model.blocks:
        x = block(x)
        sides.append(tuple(x.shape[1:]))
    assert sides[depth - 1 :: depth] == [(4, 32, 32), (8, 16, 16), (16, 8, 8), (32, 4, 4)]


@pytest.mark.parametrize("plugin", [ResNet10, ResNet18])
def test_only_group_norm_and_no_norm_train_on_one_value_per_channel(plugin):
    one = torch.ones(1, 3, 8, 8)
    for norm in ("group", "none"):
        loss = plugin(filters=2, norm=norm).build((3, 8, 8), 2)(one).square().sum()
        loss.backward()
        assert loss.isfinite()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        plugin(filters=2).build((3, 8, 8), 2)(one)
    plugin(filters=2).build((3, 16, 16), 2)(torch.ones(1, 3, 16, 16)).sum().backward()


def test_without_batch_norm_a_resnet_has_no_buffers_and_one_example_sees_no_other():
    for norm in ("group", "none"):
        model = ResNet10(filters=4, norm=norm).build((3, 16, 16), 2)
        assert not list(model.buffers())
        x = examples(None, 4, (3, 16, 16))
        torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=1e-4, atol=1e-5)


def test_the_norm_is_the_only_difference_in_the_names_of_weights():
    names = {
        norm: {name for name, _ in ResNet10(norm=norm).build((3, 16, 16), 2).named_parameters()}
        for norm in ("batch", "group")
    }
    assert names["batch"] == names["group"]


def test_lenet5_pads_an_image_to_32_pixels():
    small, large = (LeNet5().build((1, side, side), 10) for side in (28, 32))
    large.load_state_dict(small.state_dict())
    x = examples(None, 2, (1, 28, 28))
    assert torch.equal(small(x), large(F.pad(x, [2, 2, 2, 2])))


def test_lenet5_without_padding_is_niid_benchs_network():
    model = LeNet5(pad=False).build((1, 28, 28), 10)
    assert [tuple(w.shape) for w in model.parameters() if w.ndim == 2] == [
        (120, 16 * 4 * 4),
        (84, 120),
        (10, 84),
    ]
    assert sum(w.numel() for w in model.parameters()) == 44_426
    with pytest.raises(ConfigError, match="at least 16 x 16 pixels"):
        LeNet5(pad=False).build((1, 15, 16), 10)
    assert LeNet5(pad=False).build((1, 16, 16), 10)(torch.zeros(2, 1, 16, 16)).shape == (2, 10)


def test_the_features_of_the_lstm_depend_on_every_character_and_their_order():
    model = CharLstm(feature_size=8).build((5,), 80)
    texts = torch.tensor([[1, 2, 3, 4, 5], [9, 2, 3, 4, 5], [1, 2, 3, 4, 9], [5, 4, 3, 2, 1]])
    assert len(model.features(texts).unique(dim=0)) == 4


def test_a_character_outside_the_vocabulary():
    model = CharLstm(vocabulary=80).build((3,), 80)
    with pytest.raises(ConfigError) as caught:
        model(torch.tensor([[1, 2, 80]]))
    assert str(caught.value) == (
        "model 'char_lstm' knows 80 characters, but the data has id 80: set model.vocabulary to "
        "the data set's number of ids"
    )


def test_the_lstm_on_images():
    with pytest.raises(ConfigError, match=r"needs rows of character ids \(T,\); .* \(3, 8, 8\)$"):
        CharLstm().build((3, 8, 8), 80)


@pytest.mark.parametrize("plugin", [Logistic(), Mlp()])
def test_linear_layers_on_ids(plugin):
    with pytest.raises(ConfigError, match=r"cannot take ids; .* torch.int64: use a model with"):
        plugin.build((7,), 4)(torch.zeros(2, 7, dtype=torch.int64))


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
        (LeNet5(), (17,), "model 'lenet5' needs images of at least 1 x 1 pixels"),
        (ResNet10(), (1, 7, 7), "model 'resnet10' needs images of at least 8 x 8 pixels"),
        (ResNet18(), (1, 7, 7), "model 'resnet18' needs images of at least 8 x 8 pixels"),
    ],
)
def test_an_image_that_is_too_small_or_none(plugin, shape, text):
    with pytest.raises(ConfigError) as caught:
        plugin.build(shape, 10)
    assert str(caught.value) == (
        f"{text} (channels, height, width); the inputs of this data set have shape {shape}"
    )


@pytest.mark.parametrize(
    ("plugin", "side"), [(Cnn(width=1), 4), (LeNet5(), 1), (ResNet10(filters=1), 8)]
)
def test_the_smallest_image_works(plugin, side):
    model = plugin.build((1, side, side), 2).eval()
    assert model(torch.zeros(1, 1, side, side)).shape == (1, 2)
