"""Of a backbone that is frozen in part, only what trains travels; the rest is checked and kept."""

from functools import partial

import pytest
import safetensors.torch
import torch
from support import adapted
from support.fleet import Fleet, answering

import fedjoint
from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.exports.export import export
from fedjoint.node.node import Node
from fedjoint.runs.directory import RunDir
from fedjoint.server.serve import serve

TRAINED = 5 + 32 + 32  # the adapter's two layers, and the norm


WEIGHTS = adapted.Adapted().state_dict()
DOUBLED = {n: 2 * t if t.is_floating_point() else t for n, t in WEIGHTS.items()}
ADAPTER = {n: t for n, t in WEIGHTS.items() if n.startswith(("down", "up", "norm"))}


def run(tmp_path, problem=None, callbacks=(), **more):
    settings = adapted.settings(tmp_path, **more)
    return fedjoint.simulate(settings, problem or adapted.problem(), callbacks=callbacks)


class Watched(Fleet):
    """Nodes by number; keeps the names of all arrays that a message carries."""

    def __init__(self, hosts):
        super().__init__({number: answering(node) for number, node in hosts.items()})
        self.hosts, self.carried = hosts, []

    def look(self, message):
        kind, arrays = message.metadata.message_type, message.content.array_records
        self.carried += [(kind, name) for record in arrays.values() for name in record]
        return message

    def send_and_receive(self, messages, *, timeout=None):
        asked = [self.look(message) for message in messages]
        return map(self.look, super().send_and_receive(asked, timeout=timeout))


def fleet(config, *backbones):
    """Return a fleet of nodes named a, b, c, of one client each."""
    return Watched(
        {
            number: Node(
                adapted.problem(backbone), config, None, {number: number}, name="abc"[number]
            )
            for number, backbone in enumerate(backbones)
        }
    )


def test_bytes_are_those_of_what_trains(tmp_path):
    result = run(tmp_path)
    assert [record.bytes.up for record in result.records] == [3 * 4 * TRAINED] * 3
    saved = result.path / "checkpoints/round-000003.safetensors"
    assert not [name for name in safetensors.torch.load_file(saved) if "base" in name]


def test_what_is_frozen_travels_once_and_ends_in_the_final_backbone(tmp_path):
    config = check(adapted.settings(tmp_path))
    nodes = fleet(config, *[adapted.Adapted] * 3)
    final = serve(nodes, config, RunDir.create(tmp_path, "run", config), deployed=True)
    frozen = [(kind, name) for kind, name in nodes.carried if "base" in name or "scale" in name]
    assert len({kind for kind, _ in frozen}) == 1 and len(frozen) == 3 * 3  # as each is asked
    whole = adapted.Adapted()
    whole.load_state_dict({n.removeprefix("backbone."): t for n, t in final.items()})
    start = adapted.problem().model(config).backbone
    assert torch.equal(whole.base.weight, start.base.weight)
    assert not torch.equal(whole.up.weight, start.up.weight)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_node_with_other_frozen_weights_is_refused(place, tmp_path, caplog):
    config = check(adapted.settings(tmp_path))
    backbones = [adapted.Adapted] * 3
    backbones[place] = partial(adapted.Adapted, shift=1e-3)
    directory = RunDir.create(tmp_path, "run", config)
    serve(fleet(config, *backbones), config, directory, deployed=True)
    assert f"node {place} refused: its frozen weights differ from the other nodes'" in caplog.text
    assert [record.clients.trained for record in directory.records()] == [2] * 3


def test_a_node_that_lies_about_its_frozen_weights_is_refused(tmp_path, caplog):
    config = check(adapted.settings(tmp_path))
    nodes = fleet(config, *[adapted.Adapted] * 3)
    liar = nodes.hosts[1].rooms[""].trainer
    liar.digest = liar.digest  # from now on as it was
    liar.model.backbone.base.weight.data += 1
    serve(nodes, config, RunDir.create(tmp_path, "run", config), deployed=True)
    assert "node 1 refused: damaged message: its frozen tensors are not those" in caplog.text


class Interrupted(Exception):
    pass


def test_a_resumed_run_is_the_same_and_needs_the_same_frozen_weights(tmp_path):
    def interrupt(record):
        if record.round == 4:
            raise Interrupted

    settings = {
        "rounds": 6,
        "output": {"dir": str(tmp_path), "checkpoint_every": 2},
        "model": {"share": ["*", "!*.norm.*"]},
        "local": {"optimiser": {"lr": 0.1, "momentum": 0.5}},
    }
    whole = run(tmp_path, **settings)
    with pytest.raises(Interrupted):
        run(tmp_path, callbacks=[interrupt], **settings)
    (cut,) = set(tmp_path.glob("run-*")) - {whole.path}
    other = adapted.problem(partial(adapted.Adapted, shift=1e-3))
    with pytest.raises(UserError, match="frozen weights differ from those that the run began"):
        fedjoint.resume(cut, other)
    resumed = fedjoint.resume(cut, adapted.problem())
    assert resumed.backbone.keys() == whole.backbone.keys()
    assert all(torch.equal(resumed.backbone[n], t) for n, t in whole.backbone.items())
    for client, state in whole.heads().items():
        assert all(torch.equal(resumed.heads()[client][n], t) for n, t in state.items())
    assert fedjoint.resume(cut, adapted.problem()).backbone.keys() == whole.backbone.keys()
    with pytest.raises(UserError, match="began with other frozen weights than these"):
        export(cut, "side", client=0, problem=other)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.parametrize(
    ("share", "engines"),
    [(["*"], ["ray"]), (["*", "!*.norm.*"], ["ray", "flower"])],
    ids=["all", "but norms"],
)
def test_engines_give_the_same(share, engines, tmp_path, monkeypatch, two_workers):
    monkeypatch.chdir(tmp_path)
    safetensors.torch.save_file(DOUBLED, "weights.safetensors")

    def result(engine):
        settings = adapted.settings(
            tmp_path,
            problem=f"{adapted.__file__}:make",
            engine={"name": engine, "workers": 2},
            model={"share": share, "initial": "weights.safetensors"},
        )
        return fedjoint.simulate(settings)

    inline = result("inline")
    for engine in engines:
        other = result(engine)
        assert other.backbone.keys() == inline.backbone.keys()
        assert all(torch.equal(other.backbone[n], t) for n, t in inline.backbone.items())
        assert other.metrics == inline.metrics
        assert [r.bytes.up for r in other.records] == [r.bytes.up for r in inline.records]


class Teacher(adapted.Adapted):
    """A frozen layer that follows itself by ``change``."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.change(self.base.weight)
        return super().forward(x)


@pytest.mark.parametrize(
    "change", [lambda w: w.mul_(0.9), lambda w: w.data.mul_(0.9)], ids=["in place", "by data"]
)
def test_a_frozen_tensor_that_the_model_changes_is_refused(change, tmp_path):
    problem = adapted.problem(lambda: Teacher(change))
    with pytest.raises(UserError, match=r"backbone.base.weight does not train, .*: keep it in a b"):
        run(tmp_path, problem)


def test_weights_from_a_file_and_from_a_run(tmp_path):
    file = tmp_path / "pretrained.safetensors"
    safetensors.torch.save_file(DOUBLED, file)
    share = ["*", "!*.norm.*"]
    still = {"rounds": 1, "local": {"steps": 1, "epochs": None, "optimiser": {"lr": 1e-12}}}
    one = run(tmp_path, model={"share": share, "initial": str(file)}, **still)
    two = run(tmp_path, model={"share": share, "initial": str(one.path)}, **still)
    for result in (one, two):
        for name, tensor in result.backbone.items():
            torch.testing.assert_close(tensor, DOUBLED[name.removeprefix("backbone.")])
    norm = one.heads()[0]["backbone.norm.weight"]
    torch.testing.assert_close(norm, DOUBLED["norm.weight"])


@pytest.mark.parametrize(
    ("tensors", "says"),
    [
        (ADAPTER | {"base.weight": WEIGHTS["base.weight"]}, "has no 'scale', and has 'base.w"),
        (WEIGHTS | {"base.weight": torch.zeros(16, 5)}, r"'backbone.base.weight' is \(16, 5\) in"),
        (WEIGHTS | {"scale": torch.full((16,), torch.nan)}, "'backbone.scale' in .* not finite"),
    ],
)
def test_frozen_weights_that_do_not_fit_are_refused(tensors, says, tmp_path):
    file = tmp_path / "weights.safetensors"
    safetensors.torch.save_file(tensors, file)
    with pytest.raises(UserError, match=f"model.initial: .*{says}"):
        run(tmp_path, model={"initial": str(file)})


def test_an_adapter_s_file_leaves_what_is_below_it_alone(tmp_path):
    file = tmp_path / "adapter.safetensors"
    safetensors.torch.save_file(ADAPTER, file)
    own = adapted.problem().model(check({})).backbone.base.weight
    result = run(tmp_path, model={"initial": str(file)})
    assert torch.equal(result.backbone["backbone.base.weight"], own)
