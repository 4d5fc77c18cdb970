import pickle
from pathlib import Path

import numpy as np
import pytest
from support.building import build_data
from support.plugins import plugin

from fedjoint.config.data import DataConfig
from fedjoint.data.sources import digits
from fedjoint.errors import UserError


def whole(client):
    return [client.train, client.valid, client.test]


def inputs(federation):
    return np.concatenate(
        [p.x.numpy() for i in range(len(federation.sizes)) for p in whole(federation.client(i))]
    )


@pytest.mark.parametrize("partition", ["iid", "dirichlet", "quantity", "shards", "one_task"])
def test_digits_are_used_exactly_once(partition):
    tasks, federation, example = build_data(DataConfig(partition=partition), seed=3)
    assert example.shape == (1, 64)
    assert tuple(task.name for task in tasks) == federation.task_names
    everything = digits.load().examples.x.numpy()
    used = inputs(federation)
    assert sorted(map(bytes, used)) == sorted(map(bytes, everything))
    totals = [sum(len(p) for p in whole(federation.client(i))) for i in range(20)]
    assert min(totals) >= 8
    for i in range(20):
        assert len(federation.client(i).train) == federation.sizes[i]


def test_digits_mix_and_one_task():
    names = build_data(DataConfig(), 0)[1]
    for i in range(20):
        assert set(names.client(i).train.y) == set(digits.MIX[i % 6])
    one = build_data(DataConfig(partition="one_task"), 0)[1]
    assert one.tasks.argmax(1).tolist() == [i % 5 for i in range(20)]
    assert (one.tasks.sum(1) == 1).all()


def test_tasks_that_nobody_has_are_left_out():
    tasks, federation, _ = build_data(DataConfig(clients=2), 0)
    assert [task.name for task in tasks] == ["digit", "parity"]
    assert federation.tasks.tolist() == [[True, False], [False, True]]


def spread(federation, task):
    """Variance between clients of a label's mean, relative to that within."""
    y = [
        np.concatenate([p.y[task].numpy().ravel() for p in whole(federation.client(i))])
        for i in range(10)
    ]
    return np.var([own.mean() for own in y]) / np.mean([own.var() for own in y])


@pytest.mark.parametrize(("by", "task"), [(None, "loop"), ("ink", "ink")])
def test_partition_is_skewed_by_the_chosen_task(by, task):
    def built(alpha):
        mix = [["loop", "ink"]]
        return build_data(DataConfig(clients=10, alpha=alpha, by=by, task_mix=mix), 0)[1]

    assert spread(built(0.1), task) > 10 * spread(built(1000), task)


def test_same_seed_same_data_and_survives_pickling():
    first, again, other = (build_data(DataConfig(), seed)[1] for seed in (0, 0, 1))
    copy = pickle.loads(pickle.dumps(first))
    assert np.array_equal(inputs(first), inputs(again))
    assert np.array_equal(inputs(first), inputs(copy))
    assert not np.array_equal(inputs(first)[:50], inputs(other)[:50])


@pytest.mark.slow
def test_a_million_clients_are_made_on_demand():
    for config in (
        DataConfig(clients=1_000_000, partition="iid", examples_per_client=64),
        DataConfig(clients=1_000_000, source="synthetic"),
    ):
        _, federation, _ = build_data(config, 0)
        assert federation.sizes.shape == (1_000_000,) and federation.sizes.dtype == np.int64
        assert federation.tasks.shape[0] == 1_000_000 and federation.tasks.dtype == bool
        client = federation.client(999_999)
        assert len(client.train) == federation.sizes[999_999]
        own = [
            n
            for n, has in zip(federation.task_names, federation.tasks[999_999], strict=True)
            if has
        ]
        assert list(client.train.y) == own


def test_examples_per_client_caps_other_partitions():
    federation = build_data(DataConfig(examples_per_client=10), 0)[1]
    uncapped = build_data(DataConfig(), 0)[1]
    for i in range(20):
        few, all_ = federation.client(i), uncapped.client(i)
        assert len(few.train) == federation.sizes[i] == min(10, len(all_.train))
        assert few.train.x.equal(all_.train.x[:10])
        assert few.valid.x.equal(all_.valid.x) and few.test.x.equal(all_.test.x)


def text_files(folder: Path) -> list[str]:
    for name, lines in (("mood", 40), ("topic", 60)):
        rows = [f"{i % 2} {name} w{i}" for i in range(lines)]
        (folder / f"{name}.txt").write_text("\n".join(rows) + "\n")
    return [str(folder / "mood.txt"), str(folder / "topic.txt")]


def test_text_clients_hold_the_examples_of_their_tasks(tmp_path):
    mix = [["mood"], ["topic"], ["mood", "topic"]]
    config = DataConfig(
        source=plugin("text", path=text_files(tmp_path)), clients=3, task_mix=mix, min_examples=4
    )
    tasks, federation, example = build_data(config, 0)
    assert [task.name for task in tasks] == ["mood", "topic"] and example.shape == (1, 40)
    parts = [whole(federation.client(i)) for i in range(3)]
    assert [list(part[0].y) for part in parts] == mix
    assert all((p.y["mood"] >= 0).all() for p in parts[0])
    both = parts[2]
    known = [((p.y["mood"] >= 0) ^ (p.y["topic"] >= 0)).all() for p in both]
    assert all(known), "an example of one file has a label of the other, or none"
    for task, total in (("mood", 40), ("topic", 60)):
        count = [int((p.y[task] >= 0).sum()) for own in parts for p in own if task in p.y]
        assert sum(count) == total


def test_text_clients_have_every_task_unless_told(tmp_path):
    config = DataConfig(source=plugin("text", path=text_files(tmp_path)), clients=2)
    assert build_data(config, 0)[1].tasks.all()


def test_natural_clients_of_a_table(tmp_path):
    file = tmp_path / "t.csv"
    rows = [f"{'abc'[i % 3]},{i},{i % 2},{i / 7 if i % 3 else ''}" for i in range(60)]
    file.write_text("who,f,kind,size\n" + "\n".join(rows) + "\n")
    targets = {"kind": "multiclass", "size": "regression"}

    def table(standardise):
        return plugin(
            "csv", path=str(file), targets=targets, client_column="who", standardise=standardise
        )

    config = DataConfig(source=table(False), partition="natural")
    _, federation, _ = build_data(config, 0)
    scaled = build_data(DataConfig(source=table(True), partition="natural"), 0)[1].client(1)
    np.testing.assert_allclose(scaled.train.x.mean(), 0, atol=1e-6)
    # Client a has no size at all, so it does not have that task.
    assert federation.tasks.tolist() == [[True, False], [True, True], [True, True]]
    for i in range(3):
        values = sorted(v for part in whole(federation.client(i)) for v in part.x[:, 0].tolist())
        assert values == list(range(i, 60, 3))
    with pytest.raises(UserError, match=r"client 'a' has 20 examples; lower data\.min_examples"):
        build_data(config.model_copy(update={"min_examples": 21}), 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task_mix": [["digits"]]}, "unknown task in data.task_mix 'digits'.*mean 'digit'"),
        ({"by": "parities"}, "unknown data.by 'parities'.*did you mean 'parity'"),
        ({"outputs": {"digit": 9}}, "task 'digit' has 10 outputs; fix data.outputs"),
        ({"outputs": {"digits": 10}}, "unknown task in data.outputs 'digits'"),
        ({"partition": "natural"}, "needs data that says whose an example is"),
        ({"source": "digit"}, "unknown data source 'digit'.*did you mean 'digits'"),
        ({"source": "csv"}, "data source csv needs the option path: a text or a list"),
        ({"source": plugin("csv", path="x")}, "data source csv needs the option targets"),
        ({"source": plugin("digits", path="x")}, "unknown option of data source digits 'path'"),
        (
            {"source": plugin("csv", path="x", targets={"a": "ordinal"})},
            "unknown kind of task 'a' 'ordinal'",
        ),
        (
            {"source": plugin("synthetic", conflict_degrees=181)},
            "conflict_degrees = 181: a number >= 0 and <= 180",
        ),
        ({"source": "collections:Counter"}, "Counter is no fedjoint.Source"),
        ({"clients": 1000}, "1797 examples do not give 1000 clients 8 each"),
        (
            {"partition": "iid", "examples_per_client": 1798},
            "lower data.examples_per_client",
        ),
    ],
)
def test_bad_requests(settings, message):
    with pytest.raises(UserError, match=message):
        build_data(DataConfig.model_validate(settings), 0)


@pytest.mark.parametrize("column", ["type", "a.b"])
def test_names_that_no_head_can_have(tmp_path, column):
    file = tmp_path / "t.csv"
    file.write_text(f"f,{column}\n1,0\n2,1\n")
    config = DataConfig(source=plugin("csv", path=str(file), targets={column: "multiclass"}))
    with pytest.raises(UserError, match=f"a task is named '{column}', which PyTorch cannot have"):
        build_data(config, 0)
