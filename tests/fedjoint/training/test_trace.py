"""A trace runs what its program ran, on other numbers, and nothing that computes nothing."""

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from fedjoint.training.trace import functional, trace

SCALE = torch.arange(1.0, 4.0)


def program(x, y):
    pooled, _ = torch.nn.functional.max_pool1d_with_indices(x, 2)
    return [pooled.relu_() @ y * SCALE, torch.softmax(y, 0).sum()]


def draw(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in ((5, 4), (2, 3))]


def test_it_computes_what_the_program_computes_of_other_numbers():
    traced = trace(functional(program), draw(0)).graph().compiled()
    for result, expected in zip(traced(*draw(1)), program(*draw(1)), strict=True):
        assert torch.equal(result, expected)


def test_what_may_not_change_in_place_is_refused_where_it_does():
    with pytest.raises(NotImplementedError, match="changes a tensor in place"):
        trace(program, draw(0))


def operations(nodes):
    return [node.target for node in nodes if node.op == "call_function"]


def test_the_operations_are_those_that_make_fx_sees():
    traced, expected = (
        trace(functional(program), draw(0)),
        make_fx(torch.func.functionalize(program))(*draw(0)),
    )
    expected.graph.eliminate_dead_code()
    assert operations(traced.steps) == operations(expected.graph.nodes)


def test_what_computes_nothing_is_left_out():
    def idle(x):
        return [x.detach().view(5, 4).expand(5, 4).transpose(0, 1).transpose(0, 1).exp()]

    assert operations(trace(idle, draw(0)[:1]).steps) == [torch.ops.aten.exp.default]


@pytest.mark.parametrize("read", [lambda x: x.sum().item(), lambda x: int(torch.equal(x, x))])
def test_a_course_that_depends_on_numbers_is_refused(read):
    with pytest.raises(NotImplementedError, match="reads numbers"):
        trace(lambda x: [x * read(x)], draw(0)[:1])
