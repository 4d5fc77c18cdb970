"""A backbone that begins with the weights of a run, or of a file."""

import pytest
import safetensors.torch
import torch
from support import small

from fedjoint.engines.inline import Inline
from fedjoint.errors import UserError
from fedjoint.model.layout import Layout
from fedjoint.problem import build_problem
from fedjoint.runs.initial import fit_initial, read_initial
from fedjoint.simulation import simulate

SNAPSHOT = {"evaluate": {"initial": True}, "rounds": 1}


def first_backbone(config):
    """Return the backbone that a run's first round starts with."""
    found = []
    simulate(config, callbacks=[lambda _, snapshot: found.append(snapshot.backbone()) or None])
    return found[0]


def start_from(tmp_path, path, **more):
    model = {"backbone": {"options": {"hidden": [16, 8]}}, "initial": str(path)}
    return small.config(tmp_path, model=model, **SNAPSHOT, **more)


def test_a_run_begins_where_another_ended(tmp_path):
    other = simulate(small.config(tmp_path, seed=5))
    start = first_backbone(start_from(tmp_path, other.path))
    assert start.keys() == other.backbone.keys()
    for name, tensor in other.backbone.items():
        assert torch.equal(start[name], tensor)


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_run_begins_with_a_state_dict(tmp_path, prefix):
    config = small.config(tmp_path, seed=9)
    backbone = build_problem(config).model(config).backbone
    state = {prefix + name: tensor + 1 for name, tensor in backbone.state_dict().items()}
    path = tmp_path / "weights.safetensors"
    safetensors.torch.save_file({**state, "head.bias": torch.zeros(2)}, path)
    start = first_backbone(start_from(tmp_path, path))
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(start[f"backbone.{name}"], tensor + 1)


LAYOUT = Layout({"backbone.w": (2, 3), "backbone.n": (1,)}, ("backbone.n",))
GOOD = {"w": torch.zeros(2, 3), "n": torch.zeros(1)}
BAD = [
    ({"n": GOOD["n"]}, "has no 'w'; it has n"),
    (GOOD | {"w": torch.zeros(3, 2)}, r"'backbone.w' is \(3, 2\) in .*, and \(2, 3\) here"),
    (GOOD | {"w": torch.full((2, 3), torch.nan)}, "'backbone.w' in .* is not finite"),
]


@pytest.mark.parametrize(("tensors", "says"), BAD)
def test_weights_of_another_backbone_are_refused(tmp_path, tensors, says):
    with pytest.raises(UserError, match=f"model.initial: .*{says}"):
        fit_initial(tmp_path, tensors, LAYOUT)


def test_half_precision_and_infinite_statistics_are_taken(tmp_path):
    tensors = {"w": torch.ones(2, 3).half(), "n": torch.full((1,), -torch.inf)}
    taken = fit_initial(tmp_path, tensors, LAYOUT)
    assert taken["backbone.w"].dtype == torch.float32 and taken["backbone.n"].isinf().all()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone", None, "No such file"),
        ("pickle.pt", b"\x80\x02}q\x00.", "is no safetensors file"),
        ("empty", b"", "is no safetensors file"),
        ("folder", "folder", "not a run directory"),
    ],
)
def test_what_is_no_weights_is_refused_before_there_is_a_run(tmp_path, name, content, says):
    path, runs = tmp_path / name, tmp_path / "runs"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=f"model.initial: .*{says}"):
        simulate(start_from(runs, path))
    assert not runs.exists()
    with pytest.raises(UserError, match="model"):
        read_initial(path)


ADAPTED = Layout(
    {
        f"backbone.body.base_model.model.layer.{layer}.query.lora_{part}.default.weight": (1, 1)
        for layer in (0, 1)
        for part in "AB"
    }
)
ELSEWHERE = {
    "peft's": "base_model.model.layer.{}.query.lora_{}.weight",
    "fedjoint's": "body.base_model.model.layer.{}.query.lora_{}.default.weight",
    "a larger model's": "bert.layer.{}.query.lora_{}.weight",
}


@pytest.mark.parametrize("form", ELSEWHERE.values(), ids=ELSEWHERE)
def test_the_names_of_others_are_known(tmp_path, form):
    places = [(layer, part) for layer in (0, 1) for part in "AB"]
    tensors = {form.format(*at): torch.full((1, 1), float(i)) for i, at in enumerate(places)}
    taken = fit_initial(tmp_path, {**tensors, "head.weight": torch.zeros(2)}, ADAPTED)
    assert [float(tensor) for tensor in taken.values()] == [0.0, 1.0, 2.0, 3.0]


def test_of_two_parts_alike_neither_is_taken(tmp_path):
    left, right = ({f"{side}.{n}": t for n, t in GOOD.items()} for side in ("left", "right"))
    with pytest.raises(UserError, match=r"has no 'w'; it has left\.n, left\.w, right\.n, right\.w"):
        fit_initial(tmp_path, left | right, LAYOUT)
    assert fit_initial(tmp_path, left, LAYOUT)["backbone.w"] is GOOD["w"]


@pytest.mark.parametrize("name", ["model.safetensors", "adapter_model.safetensors"])
def test_a_folder_of_a_model_has_its_weights(tmp_path, name):
    safetensors.torch.save_file(GOOD, tmp_path / name)
    assert read_initial(tmp_path).keys() == GOOD.keys()


def test_workers_of_another_folder_are_told_the_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = small.config(tmp_path / "runs")
    state = build_problem(config).model(config).backbone.state_dict()
    safetensors.torch.save_file(state, "weights.safetensors")
    told = []
    monkeypatch.setattr(Inline, "execute", lambda _, config, *rest: told.append(config) or {})
    simulate(start_from(tmp_path / "runs", "weights.safetensors"))
    assert [config.model.initial for config in told] == [str(tmp_path / "weights.safetensors")]
