"""What has learnt nothing from inputs, against scikit-learn; and what is said of arms below it."""

import numpy as np
import pytest
import torch
from handmade import both, digits
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error, r2_score

import fedjoint
from fedjoint.errors import UserError
from fedjoint.experiments import contestants
from fedjoint.experiments.compare import Comparison, compare
from fedjoint.experiments.trivial import trivial
from fedjoint.experiments.verdict import verdict

TASKS = [
    fedjoint.Task("kind", "multiclass", 3),
    fedjoint.Task("tags", "multilabel", 2),
    fedjoint.Task("size", "regression", 1),
    fedjoint.Task("error", "regression", 1, metric="rmse"),
]


class Labels:
    """Three clients of unequal labels; the last has no regression task."""

    task_names = tuple(task.name for task in TASKS)
    sizes = np.array([9, 12, 7])
    tasks = np.array([[True] * 4, [True] * 4, [True, True, False, False]])

    def client(self, index):
        random = np.random.default_rng(index)
        parts = []
        for count in (self.sizes[index], 3, 8):
            y = {
                "kind": torch.from_numpy(
                    random.choice(3, count, p=np.roll([0.6, 0.3, 0.1], index))
                ),
                "tags": torch.from_numpy((random.random((count, 2)) < [0.8, 0.3]).astype("f4")),
                "size": torch.from_numpy(random.normal(index, 1, (count, 1)).astype("f4")),
            }
            y["error"] = y["size"]
            own = {n: v for n, v in y.items() if self.tasks[index][self.task_names.index(n)]}
            parts.append(fedjoint.Examples(torch.zeros(count, 2), own))
        return fedjoint.Client(*parts)


def test_it_is_scikit_learns_dummy_client_by_client():
    data = Labels()
    problem = fedjoint.Problem(TASKS, lambda: torch.nn.Linear(2, 2), data, torch.zeros(1, 2))
    clients = [data.client(index) for index in range(3)]

    def dummies(task, make, among):
        truth, said = [], []
        for client in among:
            x, y = client.train.x, client.train.y[task].numpy()
            said.append(make().fit(x, y).predict(client.test.x))
            truth.append(client.test.y[task].numpy())
        return np.concatenate(truth), np.concatenate(said).reshape(np.concatenate(truth).shape)

    def frequent():
        return DummyClassifier(strategy="most_frequent")

    found = trivial(problem)
    assert found["kind"] == pytest.approx(accuracy_score(*dummies("kind", frequent, clients)))
    f1 = f1_score(*dummies("tags", frequent, clients), average="micro")
    assert found["tags"] == pytest.approx(f1)
    regressions = dummies("size", DummyRegressor, clients[:2])
    assert found["size"] == pytest.approx(r2_score(*regressions))
    assert found["error"] == pytest.approx(mean_squared_error(*regressions) ** 0.5)


def comparison(trivial_up, trivial_size):
    arms = {
        "alone": both("alone", [0.5, 0.5], [2.0, 2.2]),
        "joint": both("joint", [0.6, 0.7], [1.0, 1.2]),
        "centralised": both("centralised", [0.8, 0.9], [1.5, 1.5]),
    }
    return Comparison(arms, trivial={"up": trivial_up, "size": trivial_size})


def test_a_task_that_nobody_has_learnt_is_in_no_mean():
    found = comparison([0.0, 0.0], [0.9, 0.9])
    assert found.idle == ("size",)
    assert found.parts["both"].delta_m() == pytest.approx([20.0, 40.0])  # of up alone
    assert any("Nobody has learnt size" in line for line in verdict(found))
    assert comparison([0.0, 0.0], [3.0, 3.0]).idle == ()
    none = comparison([1.0, 1.0], [0.1, 0.1])
    assert none.idle == ("up", "size") and np.isnan(none.parts["both"].delta_m()).all()
    assert "nobody can tell" in verdict(none)[0]


def test_a_reference_that_is_none_is_called_so():
    found = comparison([0.0, 0.0], [9.0, 9.0])
    assert found.passed == {"size": "joint"}
    (line,) = [line for line in verdict(found) if "upper reference" in line]
    assert "it is not the best on size (joint is)" in line and "up (" not in line


#: Regressions, which diverge at the highest rate.
SQUARES = {"clients": 4, "task_mix": [["ink"], ["centroid"]]}


def test_an_arm_that_does_not_train_ends_and_the_others_go_on(tmp_path, monkeypatch):
    way = contestants.CENTRALISED

    def diverging(config):
        rule = config.local.optimiser.model_copy(update={"lr": 1e6, "weight_decay": 0.0})
        hot = config.local.model_copy(update={"optimiser": rule})
        return way.plan(config.model_copy(update={"local": hot}))

    hot = contestants.CENTRALISED.__class__("centralised", diverging, merges=False)
    monkeypatch.setattr(contestants, "CENTRALISED", hot)
    found = compare(digits(tmp_path, data=SQUARES), 1)
    assert "centralised" not in found.arms and found.passed == {}
    said = found.left_out["centralised"]
    assert "nobody trained in rounds 1 to 3" in said and "local.optimiser.lr" in said


def test_training_jointly_that_diverges_ends_the_comparison_by_name(tmp_path):
    local = {"epochs": 1, "optimiser": {"lr": 1e6}}
    with pytest.raises(UserError, match=r"alone: nobody trained in rounds 1 to 3.*lower"):
        compare(digits(tmp_path, local=local, data=SQUARES), 1)
