"""The quick way of an operation returns the same, and what has none stays as it is."""

import torch

from fedjoint.training.quick import quicken
from fedjoint.training.trace import trace


def program(x, y):
    norm, *_ = torch.native_layer_norm(x, (4,), None, None, 1e-5)
    top = torch.ops.aten.threshold_backward(norm, x, 0.1)
    return [torch.bmm(x, y).view(2, 9).sum([1], keepdim=True), top.amax(2), x.new_zeros([2])]


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in ((2, 3, 4), (2, 4, 3))]


def test_it_computes_the_same_bits():
    quick = quicken(trace(program, draw(0)).graph(), draw(0))
    for result, expected in zip(quick(*draw(1)), program(*draw(1)), strict=True):
        assert torch.equal(result, expected)


def test_it_calls_what_torch_has():
    quick = quicken(trace(program, draw(0)).graph(), draw(0))
    targets = [node.target for node in quick.graph.nodes if node.op == "call_function"]
    assert torch.bmm in targets
    assert torch.ops.aten.bmm.default not in targets
    assert torch.ops.aten.threshold_backward.default in targets, "torch has no function of its own"
