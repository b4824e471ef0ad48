"""Transforms of batches, each against torchvision's function on every sample alone."""

from __future__ import annotations

import pytest
import torch
from fedbench_datasets.transforms import (
    ColourJitter,
    Crop,
    Cutout,
    Flip,
    Normalize,
    colour_jitter,
    crop,
    cutout,
    flip,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from fedbench.errors import ConfigError

RANDOM = [Crop(4), Flip(), ColourJitter(), Cutout(7)]
FORMATS = [torch.contiguous_format, torch.channels_last]
ids = [type(plugin).__name__ for plugin in RANDOM]


def rng(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(n=8, channels=3, height=12, width=10):
    return torch.rand(n, channels, height, width, generator=rng(1))


def apply(plugin, images, train=True, seed=0):
    return plugin.transform(inputs=images, train=train, rng=rng(seed))


def one_by_one(function, images, *parameters):
    """Apply torchvision's ``function(image, ...)`` to each sample with its own parameters."""
    return torch.stack(
        [function(*each) for each in zip(images, *(p.tolist() for p in parameters), strict=True)]
    )


# Against torchvision


@settings(max_examples=20)
@given(padding=st.integers(0, 6), height=st.integers(4, 12), seed=st.integers(0, 99))
def test_crop_is_torchvisions_pad_and_crop(padding, height, seed):
    images = batch(height=height)
    top, left = torch.randint(2 * padding + 1, (2, len(images)), generator=rng(seed))

    def reference(image, t, le):
        return tv.crop(tv.pad(image, [padding]), t, le, *image.shape[1:])

    assert torch.equal(crop(images, top, left, padding), one_by_one(reference, images, top, left))


def test_flip_is_torchvisions_horizontal_flip():
    images = batch()
    chosen = torch.tensor([True, False] * 4)
    wanted = one_by_one(lambda x, c: tv.horizontal_flip(x) if c else x, images, chosen)
    assert torch.equal(flip(images, chosen), wanted)


@settings(max_examples=20)
@given(channels=st.sampled_from([1, 3]), seed=st.integers(0, 99))
def test_colour_jitter_is_torchvisions_brightness_contrast_and_saturation(channels, seed):
    images = batch(channels=channels)
    factors = 2 * torch.rand(3, len(images), generator=rng(seed))

    def reference(image, brightness, contrast, saturation):
        image = tv.adjust_brightness(image, brightness)
        image = tv.adjust_contrast(image, contrast)
        return tv.adjust_saturation(image, saturation)

    torch.testing.assert_close(
        colour_jitter(images, *factors), one_by_one(reference, images, *factors)
    )


@settings(max_examples=20)
@given(size=st.integers(1, 14), seed=st.integers(0, 99))
def test_cutout_is_torchvisions_erase_of_the_part_inside_the_image(size, seed):
    images = batch()
    top, left = torch.randint(-size, 12, (2, len(images)), generator=rng(seed))

    def reference(image, t, le):
        bottom, right = max(0, t + size), max(0, le + size)
        t, le = max(0, t), max(0, le)
        nothing = torch.zeros(())
        return tv.erase(image, t, le, max(0, bottom - t), max(0, right - le), nothing)

    assert torch.equal(cutout(images, top, left, size), one_by_one(reference, images, top, left))


@pytest.mark.parametrize("values", [((0.5,), (0.5,)), ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))])
def test_normalize_is_torchvisions(values):
    images = batch()
    mean, std = (list(v) * (3 // len(v)) for v in values)
    got = Normalize(*values).transform(inputs=images)
    torch.testing.assert_close(got, tv.normalize(images, mean, std))


# What the plugins draw


def test_crop_reaches_every_place_and_only_those():
    images = batch(1, height=4, width=4).expand(400, 3, 4, 4)
    out = apply(Crop(padding=1), images)
    places = torch.tensor([(t, le) for t in range(3) for le in range(3)])
    known = crop(images[:9], *places.T, padding=1)
    found = (out[:, None] == known[None]).flatten(2).all(2)
    assert (found.sum(1) == 1).all()
    assert (found.sum(0) > 20).all()


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_flip_has_its_probability(p):
    images = batch(1).expand(2000, 3, 12, 10)
    flipped = (apply(Flip(p), images) != images).flatten(1).any(1)
    assert flipped.float().mean() == pytest.approx(p, abs=0.04 if 0 < p < 1 else 0)


def test_colour_factors_are_uniform_around_one():
    grey = torch.full((2000, 1, 2, 2), 0.5)
    only_brightness = ColourJitter(brightness=0.4, contrast=0, saturation=0)
    factors = apply(only_brightness, grey)[:, 0, 0, 0] / 0.5
    assert factors.min() == pytest.approx(0.6, abs=0.01)
    assert factors.max() == pytest.approx(1.4, abs=0.01)
    assert factors.mean() == pytest.approx(1, abs=0.02)
    strong = apply(ColourJitter(brightness=3, contrast=0, saturation=0), grey)
    assert strong.min() >= 0  # a factor is never negative
    torch.testing.assert_close(apply(ColourJitter(0, 0, 0), batch()), batch())


def test_cutout_is_centred_on_any_pixel():
    out = apply(Cutout(size=3), torch.ones(4000, 1, 5, 5))
    erased = out == 0
    sizes = erased.flatten(1).sum(1)
    assert set(sizes.tolist()) == {4, 6, 9}  # at a corner, a border, inside
    assert (sizes == 9).float().mean() == pytest.approx(9 / 25, abs=0.04)


# What holds for all random transforms


@pytest.mark.parametrize("plugin", RANDOM, ids=ids)
def test_nothing_happens_outside_training(plugin):
    images, generator = batch(), rng()
    before = generator.get_state()
    assert plugin.transform(inputs=images, train=False, rng=generator) is images
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize("plugin", RANDOM, ids=ids)
def test_samples_differ_the_stream_decides_and_the_input_is_left_alone(plugin):
    images = batch(1).expand(16, 3, 12, 10).clone()
    kept = images.clone()
    out = apply(plugin, images)
    assert len(out.flatten(1).unique(dim=0)) > 1
    assert torch.equal(out, apply(plugin, images))
    assert not torch.equal(out, apply(plugin, images, seed=1))
    assert torch.equal(images, kept)


@pytest.mark.parametrize("memory_format", FORMATS, ids=str)
@pytest.mark.parametrize("plugin", RANDOM, ids=ids)
def test_values_and_memory_format_do_not_depend_on_the_memory_format(plugin, memory_format):
    images = batch().contiguous(memory_format=memory_format)
    out = apply(plugin, images)
    # Sums may round differently from one memory format to the other.
    torch.testing.assert_close(out, apply(plugin, batch()), atol=1e-6, rtol=0)
    assert out.shape == images.shape
    if memory_format == torch.channels_last:
        assert out.is_contiguous(memory_format=memory_format)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("plugin", RANDOM, ids=ids)
def test_the_numbers_are_the_same_on_every_device(plugin):
    on_gpu = apply(plugin, batch().cuda()).cpu()
    torch.testing.assert_close(on_gpu, apply(plugin, batch()), atol=1e-6, rtol=0)


# Errors


@pytest.mark.parametrize(
    ("plugin", "name"),
    list(zip(RANDOM, ["crop", "flip", "colour_jitter", "cutout"], strict=True)),
    ids=ids,
)
def test_inputs_that_are_no_images_are_an_error(plugin, name):
    with pytest.raises(ConfigError) as error:
        apply(plugin, torch.zeros(5, 7), train=False)
    wanted = f"{name} takes images (B, channels, height, width); the inputs are (B, 7)"
    assert str(error.value) == wanted


def test_colour_needs_colours_and_normalize_a_value_for_each_channel():
    with pytest.raises(ConfigError, match="images with 1 or 3 channels; these have 2"):
        apply(ColourJitter(), batch(channels=2))
    with pytest.raises(ConfigError, match=r"normalize\.mean: 3 values for inputs with 1 channels"):
        Normalize((0.1, 0.2, 0.3)).transform(inputs=batch(channels=1))
