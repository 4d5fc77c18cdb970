"""Rules that weigh losses, against autograd on the papers' formulas and other algorithms."""

import pytest
import torch
from torch.nn import functional as F

from fedjoint import Task
from fedjoint.config.load import check
from fedjoint.config.schema import BalanceConfig
from fedjoint.errors import UserError
from fedjoint.problem import build_problem
from fedjoint.simulation import simulate
from fedjoint.strategies.mgda import MGDA
from fedjoint.strategies.upgrad import UPGrad
from fedjoint.training.balance import Balance, make_balance

TASKS = [Task(name, "regression", 1) for name in ("a", "b", "c")]
NAMES = [task.name for task in TASKS]


class Own(Balance):
    """Returns what it is told to, and fails where that is nothing."""

    def __init__(self, tasks, given: list[float] | float | None = None):
        super().__init__(tasks)
        self.given = given

    def weights(self, state):
        return torch.tensor(self.given) if isinstance(self.given, list) else self.given / 1


def rule(name, **constants):
    return make_balance(BalanceConfig(name=name, options=constants), TASKS, NAMES)


def stacked(state):
    return {name: tensor[None].clone() for name, tensor in state.items()}


def test_gradnorm_takes_the_gradient_step_of_the_paper():
    alpha, lr = 1.5, 0.1
    balance = rule("gradnorm", alpha=alpha, lr=lr)
    state = stacked(balance.private())
    first, later = torch.tensor([[2.0, 1.0, 4.0]]), torch.tensor([[1.0, 0.9, 0.4]])
    norms = torch.tensor([[1.0, 3.0, 2.0]])
    state["balance.first_losses"].copy_(first)
    state["balance.weights"].copy_(torch.tensor([[0.8, 1.3, 0.9]]))
    weights = state["balance.weights"].clone().requires_grad_()
    ratio = later / first
    target = (weights * norms).mean() * (ratio / ratio.mean()) ** alpha
    (weights * norms - target.detach()).abs().sum().backward()
    expected = (weights - lr * weights.grad).detach()
    balance.after_step(norms, later, state)
    torch.testing.assert_close(state["balance.weights"], expected * 3 / expected.sum())


def test_gradnorm_raises_the_weight_of_the_task_that_lags():
    balance = rule("gradnorm")
    state = stacked(balance.private())
    norms = torch.ones(1, 3)
    balance.after_step(norms, torch.ones(1, 3), state)
    for _ in range(5):
        balance.after_step(norms, torch.tensor([[0.9, 0.3, 0.3]]), state)
    lagging, *others = state["balance.weights"][0].tolist()
    assert lagging > 1 > max(others)


def test_dwa_is_the_softmax_of_the_last_two_rounds_ratios():
    balance = rule("dwa", temperature=2.0)
    state = stacked(balance.private())
    rounds = [[1.0, 2.0, 3.0], [0.9, 1.0, 3.3], [0.8, 0.9, 3.0]]
    found = []
    for losses in rounds:
        balance.after_round(torch.tensor([losses]), state)
        found.append(balance.weights({n: t[0] for n, t in state.items()}))
    torch.testing.assert_close(found[0], torch.ones(3))
    for before, last, weights in zip(rounds[:-1], rounds[1:], found[1:], strict=True):
        powers = torch.exp(torch.tensor(last) / torch.tensor(before) / 2.0)
        torch.testing.assert_close(weights, 3 * powers / powers.sum())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("fixed", {"weights": {"d": 1.0}}, "unknown task in balance.options.weights 'd'"),
        ("fixed", {"weights": {"a": -1.0}}, "option weights.a = -1.0"),
        (
            "dwa",
            {"temperature": 0},
            "balance dwa: option temperature = 0: a number >= 0.001 and <= 1e6",
        ),
        ("gradnorm", {"tasks": []}, "unknown option of balance gradnorm 'tasks'"),
        ("collections:Counter", {}, "Counter is no fedjoint.Balance"),
        (f"{__name__}:Own", {"given": [1.0]}, r"weights returns \(1,\): return .* shape \(3,\)"),
        (f"{__name__}:Own", {"given": 1.0}, "weights returns float: return a tensor"),
        (f"{__name__}:Own", {"given": [1.0, -1.0, 1.0]}, "give finite numbers from 0"),
        (f"{__name__}:Own", {"given": [0.0] * 3}, "all weights are 0, and nothing would be"),
        (f"{__name__}:Own", {}, "weights fails: TypeError"),
    ],
)
def test_a_balance_that_cannot_be_had_is_one_line(name, options, said):
    with pytest.raises(UserError, match=said) as error:
        rule(name, **options)
    assert "\n" not in str(error.value)


def test_stch_weighs_by_the_softmax_of_the_losses_that_are_there():
    balance = rule("stch", mu=0.5)
    losses = torch.tensor([1.0, 0.0, 2.0], requires_grad=True)
    balance.total(losses, torch.ones(3), {}, torch.tensor([4, 0, 4])).backward()
    powers = torch.tensor([2.0, 4.0]).exp()
    expected = 3 * powers / powers.sum()
    torch.testing.assert_close(losses.grad, torch.tensor([expected[0], 0, expected[1]]))
    nothing = torch.zeros(3, requires_grad=True)
    balance.total(nothing, torch.ones(3), {}, torch.zeros(3)).backward()
    assert not nothing.grad.any()


def test_famo_takes_the_steps_of_the_paper():
    lr, gamma = 0.3, 0.1
    balance = rule("famo", lr=lr, gamma=gamma)
    state = stacked(balance.private())
    first, later = torch.tensor([[2.0, 1.0, 4.0]]), torch.tensor([[1.0, 0.9, 3.0]])
    start = torch.tensor([[0.5, -0.2, 0.1]])
    state["balance.logits"].copy_(start)
    # The step of the model: its gradient weighs losses by c * z_t / loss_t.
    z = start[0].softmax(0)
    losses = first[0].clone().requires_grad_()
    weights = balance.weights({n: t[0] for n, t in state.items()})
    balance.total(losses, weights, {}, torch.ones(3)).backward()
    torch.testing.assert_close(losses.grad, 3 * (z / first[0]) / (z / first[0]).sum())
    # That of the logits: autograd on sum_t z_t * (fall of the log loss), and decay.
    logits = start.clone().requires_grad_()
    (logits.softmax(-1) * (first / later).log()).sum().backward()
    expected = (logits - lr * (logits.grad + gamma * logits)).detach()
    balance.after_step(None, first, state)
    torch.testing.assert_close(state["balance.logits"], start)  # nothing has fallen yet
    balance.after_step(None, later, state)
    torch.testing.assert_close(state["balance.logits"], expected)


def test_famo_leaves_a_task_without_a_label_as_it_is():
    balance = rule("famo", lr=0.5)
    state = stacked(balance.private())
    nan = float("nan")
    for losses in ([2.0, 2.0, 2.0], [1.0, nan, 1.9], [nan, nan, nan]):
        balance.after_step(None, torch.tensor([losses]), state)
    lagging = state["balance.logits"][0]
    assert lagging[1] == 0 and lagging[2] > 0 > lagging[0]
    losses = torch.tensor([0.0, 0.0, 3.0], requires_grad=True)
    weights = balance.weights({n: t[0] for n, t in state.items()})
    balance.total(losses, weights, {}, torch.tensor([0, 0, 5])).backward()
    torch.testing.assert_close(losses.grad, torch.tensor([0.0, 0.0, 1.0]))


def test_rlw_draws_weights_whose_log_ratios_are_differences_of_normal_numbers():
    balance, found = rule("rlw"), []
    state = stacked(balance.private())
    torch.manual_seed(0)
    for _ in range(4000):
        balance.after_step(None, torch.ones(1, 3), state)
        found.append(balance.weights({n: t[0] for n, t in state.items()}))
    weights = torch.stack(found)
    torch.testing.assert_close(weights.sum(1), torch.full((4000,), 3.0))
    ratio = (weights[:, 0] / weights[:, 1]).log()
    assert abs(float(ratio.mean())) < 0.1 and float(ratio.var()) == pytest.approx(2, abs=0.2)
    before = state["balance.drawn"].clone()
    balance.after_step(None, torch.full((1, 3), float("nan")), state)
    assert state["balance.drawn"].equal(before)


def grams(seed, rows=3):
    g = torch.randn(rows, 6, generator=torch.Generator().manual_seed(seed)) + 0.2
    return g, g @ g.T


def test_pcgrad_of_two_tasks_projects_each_onto_the_normal_of_the_other():
    a, b = torch.tensor([3.0, 0.0]), torch.tensor([-1.0, 2.0])
    g = torch.stack([a, b])
    own = make_balance(BalanceConfig(name="pcgrad"), TASKS[:2], NAMES)
    expected = torch.tensor([2.4, 1.2]) + torch.tensor([0.0, 2.0])
    torch.testing.assert_close(own.resolve(g @ g.T) @ g, expected)
    agreeing = torch.stack([a, -b])
    assert own.resolve(agreeing @ agreeing.T).tolist() == [1, 1]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["mgda", "upgrad"])
def test_rules_within_a_step_are_those_of_the_strategies(name, seed):
    # The strategies find these by an active set, another algorithm.
    ours = {"mgda": MGDA, "upgrad": UPGrad}[name]()
    g, gram = grams(seed)
    weights = torch.full((3,), 1 / 3, dtype=torch.float64)
    expected = 3 * ours.coefficients(gram.double(), weights).float() @ g
    found = rule(name).resolve(gram) @ g
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["pcgrad", "mgda", "upgrad"])
def test_a_task_without_a_gradient_is_left_out_of_the_conflict(name):
    g, _ = grams(0, rows=2)
    three = torch.stack([g[0], torch.zeros(6), g[1]])
    own = make_balance(BalanceConfig(name=name), TASKS[:2], NAMES)
    found, expected = rule(name).resolve(three @ three.T) @ three, own.resolve(g @ g.T) @ g
    torch.testing.assert_close(found, expected * (1.5 if name == "mgda" else 1))
    assert rule(name).resolve(torch.zeros(3, 3)).isfinite().all()


@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_a_step_resolves_conflict_in_the_backbone_and_trains_heads_by_their_own(tmp_path, path):
    tree = {
        "rounds": 1,
        "data": {"clients": 2, "task_mix": [["digit", "parity"]], "examples_per_client": 30},
        "model": {"backbone": {"options": {"hidden": [5]}}},
        "local": {
            "steps": 1,
            "batch_size": 1000,
            "optimiser": {"lr": 0.5},
            "path": path,
        },
        "engine": "inline",
        "balance": "upgrad",
        "output": {"dir": str(tmp_path)},
    }
    result = simulate(check(tree))
    problem = build_problem(check(tree))
    moved, sizes, heads = [], [], result.heads()
    for client in range(2):
        data, model = problem.data.client(client).train, problem.model(check(tree))
        out = model(data.x)
        losses = [F.cross_entropy(out[n], data.y[n]) for n in ("digit", "parity")]
        body = dict(model.backbone.named_parameters(prefix="backbone"))
        rows = [torch.autograd.grad(v, body.values(), retain_graph=True) for v in losses]
        g = torch.stack([torch.cat([part.flatten() for part in row]) for row in rows]).double()
        # Both projections at once, of two gradients: by hand.
        inner, square = g[0] @ g[1], (g * g).sum(1)
        step = g.sum(0) - min(inner, 0) * (g[1] / square[1] + g[0] / square[0])
        moved.append(-0.5 * step)
        sizes.append(len(data))
        sum(losses).backward()
        head = model.heads["digit"].weight
        torch.testing.assert_close(
            heads[client]["heads.digit.weight"], head - 0.5 * head.grad, rtol=1e-4, atol=1e-6
        )
    share = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    start = torch.cat([p.flatten() for p in body.values()])
    expected = start + (share @ torch.stack(moved)).float()
    found = torch.cat([result.backbone[n].flatten() for n in body])
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)


RESOLVING = ["pcgrad", "mgda", "upgrad"]
EVERY = ["fixed", "uncertainty", "gradnorm", "dwa", "stch", "famo", "rlw", *RESOLVING]


@pytest.mark.parametrize("balance", ["stch", "famo", "rlw", *RESOLVING])
def test_clients_trained_at_once_and_one_by_one_agree(tmp_path, balance):
    def trained(path):
        tree = {
            "rounds": 2,
            "data": {"clients": 5, "task_mix": [["digit", "ink"]], "partition": "quantity"},
            "model": {"backbone": {"options": {"hidden": [4]}}},
            "local": {"epochs": 1, "batch_size": 64, "path": path},
            "engine": "inline",
            "balance": balance,
            "output": {"dir": str(tmp_path)},
        }
        return simulate(check(tree)).backbone

    torch.testing.assert_close(trained("batched"), trained("sequential"), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("balance", EVERY)
def test_clients_of_every_balance_are_trained_at_once(tmp_path, balance):
    tree = {
        "rounds": 1,
        "data": {"clients": 4, "task_mix": [["digit", "ink"]], "examples_per_client": 20},
        "model": {"backbone": {"options": {"hidden": [4]}}},
        "engine": "inline",
        "balance": balance,
        "output": {"dir": str(tmp_path)},
    }
    assert simulate(check(tree)).records[0].fallback is None
