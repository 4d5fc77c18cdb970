"""Of a run with several backbones, the model of a client has its own, and others are chosen."""

from collections import Counter

import pytest
import torch
from support import small
from support.backbones import named

from fedjoint.errors import UserError
from fedjoint.experiments.transfer import transfer
from fedjoint.exports.export import export
from fedjoint.runs.directory import RunDir
from fedjoint.simulation import simulate

CLIENTS = range(0, 7, 2)  # those with the task digit


@pytest.fixture(scope="module")
def parity(tmp_path_factory):
    """Clients 0, 2, 4 and 6 have the digit: by their halves' parity they have backbone 0 or 1."""
    folder = tmp_path_factory.mktemp("parity")
    strategy = named(folder, "Parity")
    path = folder / "several.py"
    path.write_text(path.read_text().replace("return clients % 2", "return (clients == 2).long()"))
    return simulate(small.config(folder, strategy=strategy))


def of(result, number):
    return RunDir.open(result.path).final().backbone_of(result.path, number)


def has(exported, backbone):
    weights = exported.model.backbone.state_dict()
    return all(torch.equal(backbone[f"backbone.{n}"], t) for n, t in weights.items())


def test_a_client_s_model_has_its_own(parity):
    for client in CLIENTS:
        assert has(export(parity.path, "digit", client=client), of(parity, int(client == 2)))


def test_by_default_it_is_the_one_of_most_clients_with_their_heads(parity):
    found = export(parity.path, "digit")
    assert has(found, of(parity, 0)) and found.card.origin.clients == [0, 4, 6]
    assert found.card.origin.how.startswith("backbone 0 of 2, that of 3 of 4 clients, and the mean")


def test_one_is_named(parity):
    found, own = export(parity.path, "digit", backbone=1), export(parity.path, "digit", client=2)
    assert has(found, of(parity, 1)) and found.card.origin.clients == [2]
    assert torch.equal(found.model.head.weight, own.model.head.weight)


@pytest.mark.parametrize(
    ("chosen", "line"),
    [
        ({"backbone": 2}, "--backbone 2: the run has 2, from 0 to 1"),
        ({"backbone": -1}, "--backbone -1: the run has 2"),
        ({"backbone": 0, "client": 2}, "give either --client or --backbone"),
    ],
)
def test_what_there_is_not_is_said(parity, chosen, line):
    with pytest.raises(UserError, match=line):
        export(parity.path, "digit", **chosen)
    with pytest.raises(UserError, match="no client with 'loop' has backbone 1; they have 0"):
        export(parity.path, "loop", backbone=1)


def test_without_the_checkpoint_nobody_knows_who_has_which(parity, tmp_path):
    import shutil

    copy = shutil.copytree(parity.path, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints")
    with pytest.raises(UserError, match="which backbone a client has is in the checkpoint"):
        export(copy, "digit", client=0)


def test_a_transfer_and_a_start_name_one(parity, tmp_path):
    with pytest.raises(UserError, match="has 2 backbones: choose one with --backbone"):
        transfer(parity.path, "centroid", sizes=[10], repeats=1, steps=1)
    with pytest.raises(UserError, match=r"--backbone 2: .* has 2, from 0"):
        transfer(parity.path, "centroid", sizes=[10], repeats=1, steps=1, backbone=2)
    found = [
        transfer(parity.path, "centroid", sizes=[20], repeats=2, steps=3, backbone=number).rows()[0]
        for number in (0, 1)
    ]
    assert found[0]["way"] == found[1]["way"] and found[0] != found[1]
    model = {"initial": str(parity.path), "backbone": {"options": {"hidden": [16, 8]}}}
    with pytest.raises(UserError, match="the run has several backbones: export one"):
        simulate(small.config(tmp_path, model=model))
    export(parity.path, "digit", backbone=1).write(tmp_path / "one")
    started = simulate(
        small.config(tmp_path, model=model | {"initial": str(tmp_path / "one")}, rounds=1)
    )
    assert started.records[0].kept is None


def test_choices_by_loss_are_those_of_the_run(tmp_path):
    options = {"name": "ifca", "options": {"spread": 0.5}}
    result = simulate(small.config(tmp_path, strategy=options))
    final = RunDir.open(result.path).final()
    had = Counter()
    for client in CLIENTS:
        found = export(result.path, "digit", client=client)
        (own,) = [k for k in (0, 1) if has(found, final.backbone_of(result.path, k))]
        had[own] += 1
    most = export(result.path, "digit")
    assert len(most.card.origin.clients) == max(had.values())
