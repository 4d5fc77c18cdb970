"""What groups have in common is merged over all clients, and the rest within each group."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.grouped import (
    COMMON,
    GROUP_OF,
    SIZES,
    TASKS,
    People,
    Stemmed,
    clients,
    config,
    stemmed,
)
from torch import nn

from fedjoint import Group, Problem, UserError, resume, simulate

RULES = ["fedavg", "fedadam", "scaffold", "feddyn", "pcgrad", "cagrad", "ifca", "trimmedmean"]


def alike():
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh())


def one_architecture(groups):
    example = torch.zeros(1, 4)
    if not groups:
        return Problem(TASKS, alike, People(same=True), example)
    own = {name: Group(clients(name), alike, example) for name in set(GROUP_OF)}
    return Problem.of_groups(TASKS, People(same=True), own)


@pytest.mark.parametrize("rule", RULES)
def test_groups_with_everything_in_common_are_no_groups(tmp_path, rule):
    strategy = {"name": rule}
    plain = simulate(config(tmp_path, strategy=strategy), one_architecture(groups=False))
    common = {"common": ["*"]}
    grouped = simulate(
        config(tmp_path, strategy=strategy, model=common), one_architecture(groups=True)
    )
    assert grouped.backbone.keys() == plain.backbone.keys()
    for name, tensor in plain.backbone.items():
        torch.testing.assert_close(grouped.backbone[name], tensor, rtol=1e-4, atol=1e-6)
    assert grouped.records[-1].bytes == plain.records[-1].bytes


class Only(People):
    """The people of one group; the others have no examples."""

    def __init__(self, group):
        super().__init__(same=True)
        self.sizes = np.where(np.array(GROUP_OF) == group, SIZES, 0)


@pytest.mark.parametrize("rule", [*RULES, "cfl"])
def test_groups_with_nothing_in_common_are_runs_of_their_own(tmp_path, rule):
    strategy = {"name": rule}
    grouped = simulate(config(tmp_path, strategy=strategy), one_architecture(groups=True))
    for group in set(GROUP_OF):
        plain = replace(one_architecture(groups=False), data=Only(group))
        own = simulate(config(tmp_path, strategy=strategy), plain)
        for name, tensor in own.backbone.items():
            found = grouped.backbone[f"groups.{group}.{name}"]
            torch.testing.assert_close(found, tensor, rtol=1e-4, atol=1e-6)


def test_a_trunk_moves_with_all_clients_and_a_stem_with_those_of_its_group(tmp_path):
    lr, problem = 0.1, stemmed()
    local = {"batch_size": 64, "steps": 1, "optimiser": {"lr": lr}}
    settings = config(tmp_path, rounds=1, local=local, model={"common": COMMON})
    models = problem.models(settings)
    first = models["narrow"].backbone.trunk.state_dict()  # the first group's, for all
    moves = []
    for client, group in enumerate(GROUP_OF):
        model = copy.deepcopy(models[group])
        model.backbone.trunk.load_state_dict(first)
        examples = problem.data.client(client).train
        outputs = model(examples.x, list(examples.y))
        loss = sum(
            nn.functional.cross_entropy(outputs[n], y)
            if n == "sign"
            else nn.functional.mse_loss(outputs[n], y)
            for n, y in examples.y.items()
        )
        loss.backward()
        moves.append({n: -lr * p.grad for n, p in model.backbone.named_parameters()})
    result = simulate(settings, problem)
    for part, who in {"trunk": range(5), "narrow": [1, 3, 4], "wide": [0, 2]}.items():
        inside = "trunk" if part == "trunk" else "stem"
        group = "narrow" if part == "trunk" else part
        total = SIZES[list(who)].sum()
        for name, start in models[group].backbone.named_parameters():
            if not name.startswith(inside):
                continue
            mean = sum(float(SIZES[c]) / float(total) * moves[c][name] for c in who)
            key = f"backbone.{name}" if part == "trunk" else f"groups.{part}.backbone.{name}"
            torch.testing.assert_close(result.backbone[key], start + mean, rtol=1e-4, atol=1e-6)


def test_a_client_is_sent_its_own_part_alone(tmp_path):
    result = simulate(config(tmp_path, model={"common": COMMON}), stemmed())
    trunk, stem = 4 * 4 + 4, {"narrow": 3 * 4 + 4, "wide": 5 * 4 + 4}
    expected = 4 * sum(trunk + stem[group] for group in GROUP_OF)
    assert result.records[-1].bytes.down == result.records[-1].bytes.up == expected


@pytest.mark.parametrize("rule", ["fedavg", "fedadam", "scaffold", "ifca"])
def test_resumed_is_never_stopped(tmp_path, rule):
    more = {"strategy": {"name": rule}, "model": {"common": COMMON}}
    whole = simulate(config(tmp_path, **more), stemmed())
    half = simulate(config(tmp_path, rounds=1, **more), stemmed())
    rest = resume(half.path, stemmed(), rounds=3)
    assert all(torch.equal(rest.backbone[n], t) for n, t in whole.backbone.items())
    assert rest.metrics == whole.metrics


def test_means_of_blocks_are_rows_of_clients(tmp_path):
    more = {"model": {"common": COMMON}, "evaluate": {"every": 3}}
    rows = simulate(config(tmp_path, **more), stemmed())
    sums = simulate(config(tmp_path, diagnostics={"clients": 2}, **more), stemmed())
    for name, tensor in rows.backbone.items():
        torch.testing.assert_close(sums.backbone[name], tensor, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "rule", ["cfl", "taskgroups", "recon", "fedamp", "fedmerge", "fedhca2", "matu", "auto"]
)
def test_a_rule_of_whole_backbones_is_refused_where_they_are_in_parts(tmp_path, rule):
    with pytest.raises(UserError, match=f"strategy {rule} merges whole backbones alone"):
        more = {"strategy": {"name": rule}, "model": {"common": COMMON}, "rounds": 20}
        simulate(config(tmp_path, **more), stemmed())


UNLIKE = """
from fedjoint import JointStrategy

class Unlike(JointStrategy):
    \"\"\"Keeps two backbones of what is in common, and one of the rest.\"\"\"
    def first_backbones(self, backbone):
        return backbone.repeat(2 if len(backbone) == 4 * 4 + 4 else 1, 1)
    def merge(self, updates):
        return updates.means()

class Astray(Unlike):
    \"\"\"Deals what is in common by other numbers than the rest.\"\"\"
    def first_backbones(self, backbone):
        self.state["size"] = backbone.new_tensor(len(backbone))
        return backbone.repeat(2, 1)
    def receives(self, round, clients, tasks):
        return clients * 0 + (self.state["size"] > 20)
"""


@pytest.mark.parametrize(
    ("kind", "does"), [("Unlike", "has other backbones"), ("Astray", "sends clients another")]
)
def test_parts_have_to_be_dealt_alike(tmp_path, kind, does):
    (tmp_path / "own.py").write_text(UNLIKE)
    strategy = {"name": f"{tmp_path / 'own.py'}:{kind}"}
    with pytest.raises(UserError, match=f"{does}.* of one part than of another: leave model.comm"):
        simulate(config(tmp_path, strategy=strategy, model={"common": COMMON}), stemmed())


def test_conflicts_are_told_of_what_is_common_and_of_each_group(tmp_path):
    result = simulate(config(tmp_path, model={"common": COMMON}), stemmed())
    found = result.records[-1].diagnostics
    assert found["clients"]["ids"] == [0, 1, 2, 3, 4]
    assert found["groups"]["narrow"]["clients"]["ids"] == [1, 3, 4]
    assert found["groups"]["wide"]["clients"]["ids"] == [0, 2]


def test_personal_stems_stay_with_their_clients(tmp_path):
    """One stem a client: what only the group has is not shared."""
    more = {"common": COMMON, "share": COMMON}
    result = simulate(config(tmp_path, model=more), stemmed())
    assert sorted(result.backbone) == ["backbone.trunk.0.bias", "backbone.trunk.0.weight"]
    states = result.heads()
    assert states[0]["backbone.stem.weight"].shape == (4, 5)
    assert not torch.equal(states[1]["backbone.stem.weight"], states[3]["backbone.stem.weight"])


def wrong(**change):
    groups = dict(stemmed().groups)
    for name, values in change.items():
        groups[name] = replace(groups.get(name, groups["wide"]), **values)
    return lambda: Problem.of_groups(TASKS, People(), groups)


class Other(Stemmed):
    """A trunk of another width under the same names."""

    def __init__(self, width):
        super().__init__(width)
        self.trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh())


class Deeper(Stemmed):
    """A trunk with one more layer."""

    def __init__(self, width):
        super().__init__(width)
        self.trunk.append(nn.Linear(4, 4))


@pytest.mark.parametrize(
    ("problem", "model", "line"),
    [
        (wrong(wide={"clients": [0]}), {}, "client 2 is in no group"),
        (wrong(wide={"clients": [0, 2, 3]}), {}, "client 3 is in the groups 'narrow' and 'wide'"),
        (wrong(third={"clients": []}), {}, "group 'third': give the numbers of its clients"),
        (wrong(wide={"clients": [0, 2, 9]}), {}, "group 'wide': there is no client 9 of 5"),
        (wrong(wide={"clients": [0, 2.5]}), {}, "group 'wide': give the numbers of its clients"),
        (wrong(wide={"backbone": nn.Linear(5, 4)}), {}, "group 'wide': the backbone is a Linear"),
        (wrong(wide={"example": torch.zeros(5)}), {}, "group 'wide': the example has 5 rows"),
        (wrong(wide={"example": torch.zeros(1, 4)}), {}, "group 'wide': the backbone does not"),
        (stemmed, {"common": ["backbone.neck.*"]}, "'backbone.neck.*' matches nothing that group"),
        (stemmed, {"common": ["*"]}, "'backbone.stem.weight' is (4, 3) in group 'narrow' and"),
        (
            wrong(wide={"backbone": lambda: Other(5)}),
            {"common": COMMON},
            "'backbone.trunk.0.bias' is (4,) in group 'narrow' and (6,) in 'wide'",
        ),
        (
            wrong(wide={"backbone": lambda: Deeper(5)}),
            {"common": COMMON},
            "'backbone.trunk.2.bias' is shared in group 'wide' and not in 'narrow'",
        ),
        (
            stemmed,
            {"common": [*COMMON, "!backbone.trunk.*"]},
            "leaves nothing in common",
        ),
        (lambda: one_architecture(groups=False), {"common": COMMON}, "there are no groups"),
        (stemmed, {"groups": {"a": {"clients": [0]}}}, "a problem of your own has its groups"),
        (stemmed, {"initial": "weights.safetensors"}, "model.initial is of one architecture"),
    ],
)
def test_what_does_not_fit_is_said_before_there_is_a_run(tmp_path, problem, model, line):
    with pytest.raises(UserError) as error:
        simulate(config(tmp_path / "runs", model=model), problem())
    assert line in str(error.value)
    assert not (tmp_path / "runs").exists()
