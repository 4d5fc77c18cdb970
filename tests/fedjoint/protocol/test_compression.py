"""Compression against brute force, and error feedback's conservation."""

import pytest
import torch
from support.plugins import plugin

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.protocol.compression import CompressionConfig, compress, decode
from fedjoint.simulation import simulate


@pytest.mark.parametrize("name", ["topk", "int8"])
def test_what_is_sent_and_what_remains_add_up(name):
    config = CompressionConfig(name=name)
    torch.manual_seed(0)
    residual, sent, total = torch.zeros(3, 50), torch.zeros(3, 50), torch.zeros(3, 50)
    for _ in range(5):
        update = torch.randn(3, 50)
        payload, decoded, residual = compress(update, residual, config)
        assert torch.equal(decode(payload, 3, 50, config), decoded)
        sent, total = sent + decoded, total + update
    torch.testing.assert_close(sent + residual, total, rtol=1e-5, atol=1e-5)


def test_topk_keeps_the_largest():
    update = torch.tensor([[3.0, -5.0, 1.0, 0.5]])
    config = CompressionConfig(name="topk", options={"fraction": 0.5})
    _, sent, residual = compress(update, torch.zeros(1, 4), config)
    assert sent.tolist() == [[3.0, -5.0, 0, 0]] and residual.tolist() == [[0, 0, 1.0, 0.5]]


def test_int8_errs_by_half_a_level_at_most():
    update = torch.randn(4, 1000)
    _, sent, _ = compress(update, torch.zeros(4, 1000), CompressionConfig(name="int8"))
    level = update.abs().amax(1, keepdim=True) / 127
    assert ((sent - update).abs() <= level / 2 + 1e-6).all()


INDEX, VALUES = torch.tensor([[3]], dtype=torch.int32), torch.ones(1, 1)
LEVELS, SCALE = torch.ones(1, 4, dtype=torch.int8), torch.ones(1, 1)


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({"index": INDEX + 1, "values": VALUES}, "an index is not in 0..3"),
        ({"index": INDEX - 4, "values": VALUES}, "an index is not in 0..3"),
        (
            {"index": INDEX[0], "values": VALUES[0]},
            r"index is \(1,\), expected \(1, 1\)",
        ),
        (
            {"index": INDEX, "values": torch.ones(1, 2)},
            r"values is \(1, 2\), expected \(1, 1\)",
        ),
        (
            {"index": INDEX.long(), "values": VALUES},
            "index is of torch.int64, expected",
        ),
        ({"index": INDEX, "values": VALUES.double()}, "of torch.float64, expected"),
        ({"index": INDEX, "values": VALUES / 0}, "not finite"),
        ({"levels": LEVELS[:, :3], "scale": SCALE}, r"levels is \(1, 3\)"),
        ({"levels": LEVELS, "scale": SCALE[0]}, r"scale is \(1,\)"),
        ({"levels": LEVELS.int(), "scale": SCALE}, "levels is of torch.int32"),
        ({"levels": LEVELS, "scale": SCALE * float("nan")}, "not finite"),
        ({"levels": LEVELS, "values": VALUES}, "scale is no array"),
    ],
)
def test_a_damaged_payload_is_refused(payload, said):
    name = "int8" if "levels" in payload else "topk"
    config = CompressionConfig(name=name)
    with pytest.raises(UserError, match=said) as error:
        decode(payload, 1, 4, config)
    assert "\n" not in str(error.value)


def test_fewer_bytes_are_reported(tmp_path):
    def up(compression):
        config = check(
            {
                "rounds": 1,
                "data": {"clients": 4},
                "engine": {"name": "inline"},
                "output": {"dir": str(tmp_path)},
                "strategy": {"compression": compression},
            }
        )
        result = simulate(config)
        size = sum(t.numel() for t in result.backbone.values())
        return result.records[0].bytes.up / (4 * size)

    assert up({"name": "none"}) == 4
    assert up({"name": "int8"}) == pytest.approx(1, abs=0.01)
    assert up(plugin("topk", fraction=0.01)) == pytest.approx(0.02 * 4, abs=0.01)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"name": "topp"}, "unknown compression 'topp': allowed are int8, topk; did you mean"),
        (plugin("topk", fraction=2), "option fraction = 2: a number > 0 and <= 1 is allowed"),
        ({"name": "collections:Counter"}, "Counter is no fedjoint.Compression"),
    ],
)
def test_a_compression_that_cannot_be_had_is_one_line_before_there_is_a_run(config, said, tmp_path):
    tree = {"strategy": {"compression": config}, "output": {"dir": str(tmp_path / "runs")}}
    with pytest.raises(UserError, match=said) as error:
        simulate(check(tree))
    assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
