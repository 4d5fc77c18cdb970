"""A client's lean loop is a plain PyTorch loop, wherever the channels are."""

import copy

import pytest
import torch
from torch import nn

from fedjoint.config.schema import OptimiserConfig
from fedjoint.training.alone import Alone
from fedjoint.training.descent import Few

MODELS = {
    "cnn": lambda: nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 4)
    ),
    "norms": lambda: nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 4),
    ),
}  # fmt: skip


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize(
    "rule", [{"momentum": 0.0}, {"momentum": 0.9, "weight_decay": 0.01}], ids=["plain", "momentum"]
)
@pytest.mark.parametrize("name", MODELS)
def test_it_is_a_plain_loop(name, rule, channels_last):
    torch.manual_seed(3)
    model = MODELS[name]()
    plain = copy.deepcopy(model)
    parameters = {n: p.detach().clone()[None] for n, p in model.named_parameters()}
    buffers = {n: b.clone()[None] for n, b in model.named_buffers()}
    batches = [(torch.randn(5, 2, 8, 8), torch.tensor([0, 1, 2, 3, -1])) for _ in range(4)]

    def objective(state, x, y, weights):
        losses = nn.functional.cross_entropy(model(x), y["label"], ignore_index=-1)[None]
        return (weights * losses).sum(), losses.detach()

    few = (
        Few(1, x[None], {"label": y[None]}, torch.tensor([[number != 2]]))
        for number, (x, y) in enumerate(batches)
    )
    alone = Alone(model, objective, OptimiserConfig(lr=0.1, **rule), channels_last=channels_last)
    total, counted = alone.run(parameters, buffers, few, torch.full((1, 1), 0.5), 0.1)
    for n, untouched in plain.state_dict().items():
        assert torch.equal(model.state_dict()[n], untouched)
    optimiser = torch.optim.SGD(plain.parameters(), 0.1, **rule)
    losses = []
    for x, y in batches:
        loss = nn.functional.cross_entropy(plain(x), y, ignore_index=-1)
        optimiser.zero_grad()
        (0.5 * loss).backward()
        optimiser.step()
        losses.append(loss.item())
    assert counted.tolist() == [[3]]
    assert total.item() == pytest.approx(sum(losses) - losses[2], rel=1e-4)
    for n, expected in plain.state_dict().items():
        found = (parameters | buffers)[n][0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
