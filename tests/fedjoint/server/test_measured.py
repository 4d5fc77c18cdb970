"""What an evaluation is of: which round, which examples, and which clients."""

import numpy as np
import pytest
import torch
from torch import nn

import fedjoint
from fedjoint.errors import UserError
from fedjoint.experiments.report import metrics_table


class Toy:
    """Four clients that tell the sign of the first number."""

    task_names = ("sign",)
    sizes = np.full(4, 30)
    tasks = np.ones((4, 1), bool)

    def client(self, index):
        examples = make_examples(50, index)
        return fedjoint.Client(*map(examples.take, torch.arange(50).split([30, 10, 10])))


def make_examples(count, seed):
    x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    return fedjoint.Examples(x, {"sign": (x[:, 0] > 0).long()})


def problem(**more):
    task = fedjoint.Task("sign", "multiclass", 2)
    return fedjoint.Problem([task], lambda: nn.Linear(3, 4), Toy(), torch.zeros(1, 3), **more)


def run(tmp_path, tree=None, callbacks=(), **more):
    base = {"rounds": 2, "engine": {"name": "inline"}, "output": {"dir": str(tmp_path)}}
    return fedjoint.simulate({**base, **(tree or {})}, problem(**more), callbacks=callbacks)


def test_round_zero_is_the_first_backbone_with_untrained_heads(tmp_path):
    taken = []
    tree = {"evaluate": {"initial": True}, "data": {}}
    result = run(tmp_path, tree, [lambda record, snapshot: taken.append(snapshot) or None])
    assert [record.round for record in result.records] == [0, 1, 2]
    first, model = result.records[0], problem().model(result.config)
    assert first.clients.asked == 0 and first.loss == {} and first.seconds.train == 0
    data = Toy()
    right = [
        (model(data.client(i).test.x, ["sign"])["sign"].argmax(1) == data.client(i).test.y["sign"])
        for i in range(4)
    ]
    assert first.test["sign"] == pytest.approx(torch.cat(right).float().mean().item())
    assert taken[0].clients.tolist() == [0, 1, 2, 3] and taken[0].tasks == ("sign",)
    np.testing.assert_allclose(taken[0].values[:, 0], [r.float().mean() for r in right])
    assert [snapshot.round for snapshot in taken] == [0, 1, 2]


def test_a_snapshot_has_the_backbone_and_the_metrics_of_its_round(tmp_path):
    backbones, records = [], []

    class Watch(fedjoint.Callback):
        def on_snapshot(self, snapshot):
            backbones.append(snapshot.backbone())
            snapshot.backbone()["backbone.weight"].zero_()  # it is a copy

        def after_round(self, record):
            assert len(backbones) == record.round
            records.append(record)

    result = run(tmp_path, callbacks=[Watch()])
    assert records == result.records
    for name, tensor in result.backbone.items():
        assert torch.equal(backbones[-1][name], tensor)
        assert not torch.equal(backbones[0][name], tensor)


def test_a_function_takes_a_record_or_the_snapshot_too_and_nothing_else(tmp_path):
    with pytest.raises(UserError, match="let it take the record, or the record and the snapshot"):
        run(tmp_path, callbacks=[lambda a, b, c: None])
    with pytest.raises(UserError, match="let it take the record"):
        run(tmp_path, callbacks=[lambda: None])


def test_the_mean_of_the_clients_metrics_is_the_pooled_one(tmp_path):
    means = []
    result = run(tmp_path, callbacks=[lambda _, snapshot: means.append(snapshot.values.mean())])
    assert [record.test["sign"] for record in result.records] == pytest.approx(means)


def test_training_examples_are_measured_in_the_last_round_or_always(tmp_path):
    always, last = run(tmp_path, {"evaluate": {"train": True}}), run(tmp_path)
    assert last.metrics == always.metrics
    before, early = last.records[0], always.records[0]
    assert before.evaluation["train"] == {"sign": None} != early.evaluation["train"]
    assert before.test == early.test
    stopped = run(tmp_path, callbacks=[lambda record: True])
    assert [column.header for column in metrics_table("", stopped).columns][:3] == [
        "task",
        "valid",
        "test",
    ]


@pytest.mark.parametrize("path", ["batched", "sequential"])
def test_central_examples_measure_every_client(tmp_path, path):
    central = make_examples(40, 99)
    tree = {"local": {"epochs": 1, "path": path}, "evaluate": {"batch_size": 16}}
    result = run(tmp_path, tree, central=central)
    model, right = problem().model(result.config).eval(), []
    for head in result.heads().values():
        weights = {**result.backbone, **head}
        outputs = torch.func.functional_call(model, weights, (central.x, ["sign"]))["sign"]
        right.append(outputs.argmax(1) == central.y["sign"])
    assert len(right) == 4
    mean = torch.cat(right).float().mean().item()
    assert result.metrics["central"] == {"sign": pytest.approx(mean)}
    assert "central" not in run(tmp_path).metrics
    headers = [column.header for column in metrics_table("", result).columns]
    assert headers[:5] == ["task", "train", "valid", "test", "central"]


BAD = [
    (fedjoint.Examples(torch.zeros(2, 4), {"sign": torch.zeros(2).long()}), "the central inputs"),
    (fedjoint.Examples(torch.zeros(2, 3), {}), "the central examples, task 'sign': no labels"),
    (
        fedjoint.Examples(torch.zeros(2, 3), {"sign": torch.tensor([0, 7])}),
        "the central examples, task 'sign': class 7 of 2",
    ),
    (
        fedjoint.Examples(torch.full((2, 3), torch.nan), {"sign": torch.zeros(2).long()}),
        "the central inputs: example 0 is not finite",
    ),
    (torch.zeros(2, 3), "central: of type torch.Tensor: give fedjoint.Examples"),
    (fedjoint.Examples(torch.zeros(0, 3), {"sign": torch.zeros(0).long()}), "central has no"),
]


@pytest.mark.parametrize(("central", "says"), BAD)
def test_bad_central_examples_are_refused_before_the_first_round(tmp_path, central, says):
    rounds = []
    with pytest.raises(UserError, match=says):
        run(tmp_path, callbacks=[rounds.append], central=central)
    assert not rounds


def test_who_never_trained_is_in_no_metric_and_counted(tmp_path):
    tree = {"strategy": {"fraction": 0.5}, "rounds": 3}
    ids = []
    result = run(tmp_path, tree, [lambda _, snapshot: ids.append(snapshot.clients.tolist())])
    trained: set[int] = set()
    for record, evaluated in zip(result.records, ids, strict=True):
        trained |= set(record.clients.ids)
        assert evaluated == sorted(trained)
        assert record.clients.untrained == 4 - len(trained)
        assert record.spread["sign"]["clients"] == len(trained)
    assert result.records[0].clients.untrained == 2


def test_few_of_many_are_measured_though_few_have_trained(tmp_path):
    tree = {"strategy": {"fraction": 0.25}, "evaluate": {"fraction": 0.25}, "rounds": 2}
    ids = []
    result = run(tmp_path, tree, [lambda _, snapshot: ids.append(snapshot.clients.tolist())])
    trained: set[int] = set()
    for record, evaluated in zip(result.records, ids, strict=True):
        trained |= set(record.clients.ids)
        assert len(evaluated) == 1 and trained.issuperset(evaluated)
        assert record.evaluation and not record.clients.untrained


def test_a_run_whose_metrics_are_all_undefined_is_an_error(tmp_path):
    class Alike(Toy):
        """The only labels are of one value, of which R2 is undefined."""

        def client(self, index):
            x = make_examples(50, index).x
            examples = fedjoint.Examples(x, {"sign": torch.ones(50, 1)})
            return fedjoint.Client(*map(examples.take, torch.arange(50).split([30, 10, 10])))

    task = fedjoint.Task("sign", "regression", 1)
    alike = fedjoint.Problem([task], lambda: nn.Linear(3, 4), Alike(), torch.zeros(1, 3))
    tree = {"rounds": 2, "engine": {"name": "inline"}, "output": {"dir": str(tmp_path)}}
    with pytest.raises(UserError, match="no metric is defined in any of 2 evaluations"):
        fedjoint.simulate(tree, alike)
