"""Encoders: shapes at every output stride, dropout that a seed alone decides."""

from __future__ import annotations

import pytest
import torch

from ctray.config import EncoderConfig, RotationConfig
from ctray.core.errors import ConfigError
from ctray.learn.pretext.encoder import (
    RotationModel,
    SliceEncoder,
    SpatialDropout,
    reseed_dropout,
)

NARROW = {8: (4, 6, 8), 16: (4, 6, 8, 10), 32: (4, 5, 6, 7, 8)}


def encoder_config(name: str, stride: int, **more: object) -> EncoderConfig:
    widths = NARROW[stride] if name == "narrow" else (4, 6, 8)
    return EncoderConfig.model_validate(
        {"name": name, "output_stride": stride, "widths": widths, "embedding_dim": 16, **more}
    )


@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("name", ["narrow", "resnet18"])
def test_shapes(name: str, stride: int) -> None:
    encoder = SliceEncoder(encoder_config(name, stride)).eval()
    x = torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        features = encoder.superpixels(x)
        embedding = encoder(x)
    channels = 512 if name == "resnet18" else NARROW[stride][-1]
    assert features.shape == (2, channels, 64 // stride, 64 // stride)
    assert embedding.shape == (2, 16)


def test_sides_that_the_stride_does_not_divide() -> None:
    encoder = SliceEncoder(encoder_config("narrow", 8)).eval()
    with torch.no_grad():
        assert encoder(torch.randn(3, 1, 37, 37)).shape == (3, 16)


@pytest.mark.parametrize("classes", [3, 7])
def test_model_tells_pairs_apart_by_their_order(classes: int) -> None:
    rotation = RotationConfig(angle_step=180 / (classes - 1))
    model = RotationModel(encoder_config("narrow", 8), rotation).eval()
    a, b = torch.randn(2, 5, 1, 32, 32)
    with torch.no_grad():
        logits = model(a, b)
        assert logits.shape == (5, classes)
        # Embedding once and comparing later is the same as all at once.
        later = model.compare(model.embed(a), model.embed(b))
        torch.testing.assert_close(logits, later)
        assert not torch.allclose(logits, model(b, a))


def test_pooled_grid_keeps_where_something_is() -> None:
    """Global pooling cannot tell a spot from the same spot elsewhere; a grid can."""
    left, right = torch.zeros(2, 1, 64, 64)
    left[0, 20:28, 4:12] = 5
    right[0, 20:28, 52:60] = 5
    both = torch.stack([left, right])
    far = {}
    for cells in (1, 4):
        torch.manual_seed(0)
        encoder = SliceEncoder(encoder_config("narrow", 8, pool_grid=cells)).eval()
        with torch.no_grad():
            one, other = encoder(both)
        far[cells] = float((one - other).norm() / one.norm())
    assert far[4] > 10 * far[1]


@pytest.mark.parametrize("name", ["narrow", "resnet18"])
def test_dropout_is_a_function_of_its_seed(name: str) -> None:
    model = RotationModel(encoder_config(name, 8, dropout=0.5), RotationConfig())
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0  # running statistics are another matter
    model.train()
    a, b = torch.randn(2, 4, 1, 32, 32)

    def logits(seed: int) -> torch.Tensor:
        reseed_dropout(model, seed)
        torch.manual_seed(seed * 7 + 1)  # the global generator must not matter
        with torch.no_grad():
            result: torch.Tensor = model(a, b)
        return result

    first, second = logits(3), logits(4)
    assert torch.equal(logits(3), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("name", ["narrow", "resnet18"])
def test_there_is_dropout_after_every_stage(name: str) -> None:
    encoder = SliceEncoder(encoder_config(name, 8, dropout=0.3))
    drops = [m for m in encoder.modules() if isinstance(m, SpatialDropout)]
    assert len(drops) == (3 if name == "narrow" else 4)
    assert {d.p for d in drops} == {0.3}
    calls: list[float] = []
    for drop in drops:
        drop.register_forward_hook(
            lambda _m, _i, out: calls.append(float((out.abs().sum(dim=(2, 3)) == 0).float().mean()))
        )
    encoder.train()
    with torch.no_grad():
        encoder(torch.randn(8, 1, 32, 32))
    assert len(calls) == len(drops)
    assert min(calls) > 0


def test_dropout_drops_whole_channels_and_keeps_the_mean() -> None:
    drop = SpatialDropout(0.25)
    drop.reseed(0)
    out = drop.train()(torch.ones(200, 50, 3, 3))
    assert out.unique().tolist() == pytest.approx([0, 1 / 0.75])
    per_channel = out.flatten(2)
    assert torch.equal(per_channel.amin(2), per_channel.amax(2))
    # 10,000 channels: spread of the mean 0.006.
    assert float(out.mean()) == pytest.approx(1.0, abs=0.03)


def test_masks_differ_from_call_to_call() -> None:
    drop = SpatialDropout(0.5)
    drop.reseed(1)
    x = torch.ones(4, 64, 1, 1)
    assert not torch.equal(drop.train()(x), drop(x))


def test_dropouts_of_one_model_differ() -> None:
    model = torch.nn.ModuleList([SpatialDropout(0.5), SpatialDropout(0.5)]).train()
    reseed_dropout(model, 9)
    x = torch.ones(4, 64, 1, 1)
    assert not torch.equal(model[0](x), model[1](x))


@pytest.mark.parametrize("p", [0.0, 0.5])
def test_dropout_is_off_in_evaluation(p: float) -> None:
    x = torch.randn(3, 5, 2, 2)
    assert torch.equal(SpatialDropout(p).eval()(x), x)
    if p == 0:
        assert torch.equal(SpatialDropout(p).train()(x), x)


def test_evaluation_gives_the_same_twice() -> None:
    model = RotationModel(encoder_config("narrow", 8, dropout=0.5), RotationConfig()).eval()
    a, b = torch.randn(2, 2, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(model(a, b), model(a, b))


def test_unknown_encoder_is_named() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.name 'resnet19'"):
        SliceEncoder(EncoderConfig(name="resnet19"))


def test_widths_must_give_the_stride() -> None:
    with pytest.raises(ConfigError, match=r"\(4, 6\).*stride of 4, not 8"):
        SliceEncoder(EncoderConfig(widths=(4, 6), output_stride=8))
