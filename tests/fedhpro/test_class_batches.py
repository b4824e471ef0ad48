"""Class batches: what is drawn, how it is augmented, and what must not change."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from fedbench_fedhpro import class_batches
from fedbench_fedhpro.class_batches import augment, real_samples
from torch import Tensor

NAMES = ("colour", "crop", "cutout", "flip", "scale", "rotate")
STRATEGIES = dict(zip(NAMES, class_batches.STRATEGIES, strict=True))


def draws(*values: float):
    """Return a function that yields these uniform numbers to a strategy, and then no more."""
    left = list(values)
    return lambda: left.pop(0)


def images(n: int = 3, channels: int = 3, size: int = 8) -> Tensor:
    return torch.rand(n, channels, size, size, generator=torch.Generator().manual_seed(0))


class TestAugment:
    @pytest.fixture(params=NAMES)
    def only(self, request, monkeypatch) -> None:
        """`augment` with one strategy to choose from."""
        monkeypatch.setattr(class_batches, "STRATEGIES", (STRATEGIES[request.param],))

    @pytest.mark.usefixtures("only")
    @pytest.mark.parametrize("shape", [(4, 3, 8, 8), (1, 1, 7, 10)])
    def test_keeps_shape_and_input(self, shape):
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        kept = x.clone()
        assert augment(x, torch.Generator().manual_seed(1)).shape == shape
        assert torch.equal(x, kept)

    @pytest.mark.usefixtures("only")
    def test_treats_the_whole_batch_alike(self):
        x = images(1).repeat(4, 1, 1, 1)
        for seed in range(5):
            out = augment(x, torch.Generator().manual_seed(seed))
            torch.testing.assert_close(out, out[:1].expand(4, -1, -1, -1), rtol=0, atol=1e-6)

    @pytest.mark.usefixtures("only")
    def test_depends_on_the_generator_alone(self):
        def out(seed: int) -> Tensor:
            return augment(images(), torch.Generator().manual_seed(seed))

        before = torch.get_rng_state()
        results = [out(seed) for seed in range(8)]
        assert all(torch.equal(a, out(seed)) for seed, a in enumerate(results))
        assert not all(torch.equal(a, results[0]) for a in results)
        assert torch.equal(torch.get_rng_state(), before)

    def test_draws_each_of_the_six_about_as_often(self, monkeypatch):
        marked = tuple(lambda x, u, i=i: x + i for i in range(6))
        monkeypatch.setattr(class_batches, "STRATEGIES", marked)
        rng = torch.Generator().manual_seed(0)
        seen = Counter(int(augment(torch.zeros(1, 1, 1, 1), rng)) for _ in range(600))
        assert sorted(seen) == [0, 1, 2, 3, 4, 5]
        assert min(seen.values()) > 70


class TestStrategies:
    @pytest.mark.parametrize(("draw", "flipped"), [(0.0, True), (0.499, True), (0.5, False)])
    def test_flip_mirrors_left_and_right_half_of_the_time(self, draw, flipped):
        x = images()
        expected = x.clone()
        if flipped:
            for column in range(8):
                expected[..., column] = x[..., 7 - column]
        assert torch.equal(STRATEGIES["flip"](x, draws(draw)), expected)

    @pytest.mark.parametrize(("draw", "shift"), [(0.0, -1), (0.5, 0), (0.999, 1)])
    def test_crop_shifts_by_up_to_an_eighth_and_fills_with_zeros(self, draw, shift):
        x = images()
        expected = torch.zeros_like(x)
        for row in range(8):
            for column in range(8):
                if 0 <= row + shift < 8 and 0 <= column - shift < 8:
                    expected[..., row, column] = x[..., row + shift, column - shift]
        assert torch.equal(STRATEGIES["crop"](x, draws(draw, 0.999 - draw)), expected)

    @pytest.mark.parametrize(
        ("draw", "rows"), [(0.0, (0, 2)), (0.5, (2, 6)), (0.7, (4, 8)), (0.999, (6, 8))]
    )
    def test_cutout_blanks_a_square_of_half_the_side_that_may_overhang(self, draw, rows):
        # Of 8 pixels, 4 are cut, centred on one of the 9 pixel edges.
        x = images() + 1
        expected = x.clone()
        expected[:, :, rows[0] : rows[1], 2:6] = 0
        assert torch.equal(STRATEGIES["cutout"](x, draws(draw, 0.5)), expected)

    def test_cutout_of_an_odd_side_is_centred_on_a_pixel(self):
        # Of 5 pixels, int(2.5 + 0.5) = 3 are cut.
        out = STRATEGIES["cutout"](torch.ones(1, 1, 5, 5), draws(0.0, 0.999))[0, 0]
        blank = [(r, c) for r in range(5) for c in range(5) if out[r, c] == 0]
        assert blank == [(r, c) for r in (0, 1) for c in (3, 4)]

    @pytest.mark.parametrize("draw", [(0.5, 0.5, 0.5), (0.1, 0.9, 0.2), (0.9, 0.0, 0.7)])
    def test_colour_changes_brightness_then_saturation_then_contrast(self, draw):
        brightness, saturation, contrast = draw[0] - 0.5, 2 * draw[1], draw[2] + 0.5
        expected = []
        for x in images():
            x = x + brightness
            grey = sum(x) / 3
            x = torch.stack([(c - grey) * saturation + grey for c in x])
            expected.append((x - x.mean()) * contrast + x.mean())
        torch.testing.assert_close(
            STRATEGIES["colour"](images(), draws(*draw)), torch.stack(expected)
        )

    def test_scale_by_1_and_rotation_by_0_change_nothing(self):
        one = (1 - 1 / 1.2) / (1.2 - 1 / 1.2)
        torch.testing.assert_close(STRATEGIES["scale"](images(), draws(one, one)), images())
        torch.testing.assert_close(STRATEGIES["rotate"](images(), draws(0.5)), images())

    def test_scale_zooms_each_axis_by_up_to_a_fifth(self):
        white = torch.ones(1, 1, 24, 24)
        closer = STRATEGIES["scale"](white, draws(0.0, 0.0))
        torch.testing.assert_close(closer, white)
        # Zoomed out to 24 / 1.2 = 20 of 24 columns, rows zoomed in.
        farther = STRATEGIES["scale"](white, draws(0.9999, 0.0))[0, 0]
        assert [int(v) for v in farther[12].round()] == [0] * 2 + [1] * 20 + [0] * 2
        assert torch.equal(farther[0] > 0.5, farther[12] > 0.5)

    @pytest.mark.parametrize(("draw", "degrees"), [(0.0, -15), (1.0, 15), (0.75, 7.5)])
    def test_rotate_turns_about_the_centre_by_up_to_15_degrees(self, draw, degrees):
        # Ramps along x and y are rotated; their slopes form the matrix that samples the image.
        along_x = torch.linspace(-16, 16, 33).expand(33, 33)
        ramps = torch.stack([along_x, along_x.T])[None]
        out = STRATEGIES["rotate"](ramps, draws(draw))[0]
        slopes = torch.stack([out[:, 16, 20] - out[:, 16, 12], out[:, 20, 16] - out[:, 12, 16]]) / 8
        angle = math.radians(degrees)
        turn = [[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]]
        torch.testing.assert_close(slopes, torch.tensor(turn), rtol=0, atol=1e-4)
        torch.testing.assert_close(out[:, 16, 16], torch.zeros(2), rtol=0, atol=1e-5)


class TestClassBatches:
    """Real rounds of four clients with 18 examples each, on the tiny data set."""

    @pytest.fixture
    def seen(self, run, look):
        """Run FedAvg with class batches and return the result of ``client`` for each turn."""

        def turns(client, rounds: int = 1, **options):
            found = []
            extra = {"class_batches": options, **look(client=lambda ctx: found.append(client(ctx)))}
            run("fedavg", extra=extra, rounds=rounds)
            return found

        return turns

    @pytest.mark.parametrize("size", [1, 5, 100])
    def test_draw_at_most_size_of_each_class(self, seen, size):
        def counts(ctx):
            drawn, held = real_samples(ctx)[0].labels, ctx.data.labels
            return drawn.bincount().tolist(), held.bincount().clamp(max=size).tolist()

        turns = seen(counts, size=size)
        assert [drawn for drawn, _ in turns] == [expected for _, expected in turns]
        assert len(turns) == 4

    def test_are_different_examples_under_the_received_model_in_evaluation_mode(self, seen):
        def check(ctx):
            (drawn,) = real_samples(ctx)
            everything, all_labels = ctx.embed()
            close = torch.isclose(drawn.features[:, None], everything.features[None], atol=1e-6)
            same = close.all(-1)
            found = same.int().argmax(dim=1)
            assert same.any(dim=1).all()
            assert len(set(found.tolist())) == len(drawn.features) == 9
            assert torch.equal(all_labels[found], drawn.labels)
            assert torch.equal(drawn.weight, ctx.payload.weights()["classifier.weight"])
            assert torch.equal(drawn.bias, ctx.payload.weights()["classifier.bias"])
            assert not any(part.requires_grad for part in drawn)

        seen(check, size=3, augment=False, rounds=2)

    def test_leave_the_model_as_it_was_received_batch_norm_too(self, seen):
        def check(ctx):
            received = ctx.payload.weights()
            for name, value in ctx.model.state_dict().items():
                assert torch.equal(value, received[name]), name
            assert ctx.model.training
            return set(received)

        assert "norm.running_mean" in seen(check, rounds=2)[0]

    def test_are_drawn_anew_for_each_repeat_client_and_round(self, seen):
        turns = seen(lambda ctx: [d.features for d in real_samples(ctx)], repeats=3, rounds=2)
        everything = [features for turn in turns for features in turn]
        assert len(everything) == 2 * 4 * 3
        for n, one in enumerate(everything):
            assert not any(torch.equal(one, other) for other in everything[:n])

    def test_are_augmented_class_by_class_when_asked(self, seen, monkeypatch):
        sizes = []
        monkeypatch.setattr(class_batches, "augment", lambda x, rng: sizes.append(len(x)) or x)
        seen(lambda ctx: None, size=3, augment=False)
        assert sizes == []
        seen(lambda ctx: None, size=3, repeats=2)
        assert sizes == [3] * 3 * 2 * 4

    @pytest.mark.parametrize("options", [{}, {"augment": False, "repeats": 2, "size": 2}])
    def test_do_not_disturb_training(self, run, options):
        plain, more = run("fedavg"), run("fedavg", extra={"class_batches": options})
        assert plain.result()["weights_sha256"] == more.result()["weights_sha256"]
