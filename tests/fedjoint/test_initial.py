"""A run or an export is no beginning where inputs are others, or where nobody trained it."""

import json

import pytest
from support import small, tables
from support.pretrained import VOCABULARY, save_tokenizer

from fedjoint.config.load import check
from fedjoint.errors import UserError
from fedjoint.exports.export import export
from fedjoint.runs.directory import RunDir
from fedjoint.runs.seal import write_sealed
from fedjoint.simulation import simulate


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a table, a run of it, and the run's export."""
    folder = tmp_path_factory.mktemp("trained")
    path = tables.write(folder / "v.csv")
    run = simulate(tables.config(folder, path)).path
    export(run, "diag").write(folder / "export")
    return folder, path, run


def test_a_run_says_what_its_backbone_reads(trained):
    _, _, run = trained
    (part,) = RunDir.open(run).inputs["parts"].values()
    assert part["columns"] == ["a", "b", "d"] and part["shape"] == [3]


ORDER = (
    r"trained on the columns a, b, d, and given them as d, b, a here: set .*features = \['a', 'b"
)


@pytest.mark.parametrize("what", ["run", "export"])
def test_columns_in_another_order_are_refused_before_there_is_a_run(trained, tmp_path, what):
    folder, path, run = trained
    initial = run if what == "run" else folder / "export"
    with pytest.raises(UserError, match=f"model.initial: .*{ORDER}"):
        simulate(tables.config(tmp_path, path, initial=initial, features=["d", "b", "a"]))
    other = tables.write(tmp_path / "w.csv", ["clinic", "d", "b", "a", "diag"])
    with pytest.raises(UserError, match=ORDER):
        simulate(tables.config(tmp_path, other, initial=initial, drop=[]))
    assert not (tmp_path / "runs").exists()
    simulate(tables.config(tmp_path, other, initial=initial, drop=[], features=["a", "b", "d"]))


def test_other_columns_and_another_scale_are_refused_and_a_file_is_the_user_s_word(
    trained, tmp_path
):
    _, path, run = trained
    for options, said in [
        ({"features": ["a", "b", "q"], "drop": []}, "trained on the columns a, b, d, and given a"),
        ({"features": ["a", "b"]}, "trained on the columns a, b, d, and given a, b here"),
        ({"standardise": False}, "standardised features, and given unscaled ones"),
    ]:
        with pytest.raises(UserError, match=said):
            simulate(tables.config(tmp_path, path, initial=run, **options))
    weights = run / "final" / "backbone.safetensors"
    simulate(tables.config(tmp_path, path, initial=weights, features=["d", "b", "a"]))


def test_an_older_run_that_does_not_say_is_taken(trained, tmp_path):
    _, path, _ = trained
    older = RunDir.open(simulate(tables.config(tmp_path, path)).path)
    info = {name: value for name, value in older.info.items() if name not in ("run", "inputs")}
    write_sealed(older.path / "run.json", older.id, info)
    simulate(tables.config(tmp_path, path, initial=older.path, features=["d", "b", "a"]))


def test_a_backbone_that_nobody_trained_is_refused(trained, tmp_path):
    _, path, _ = trained
    alone = simulate(tables.config(tmp_path, path, local={"method": "independent"})).path
    with pytest.raises(UserError, match=r"have backbones of their own .local method independent"):
        simulate(tables.config(tmp_path, path, initial=alone))


def test_what_clients_kept_to_themselves_begins_fresh_and_that_is_said(trained, tmp_path, caplog):
    _, path, _ = trained
    share, said = ["*", "!backbone.3.*"], "3.bias, 3.weight of its backbone are its clients' own"
    part = simulate(tables.config(tmp_path, path, share=share)).path
    simulate(tables.config(tmp_path, path, share=share, initial=part))
    assert said in caplog.text
    caplog.clear()
    export(part, "diag", client=1).write(tmp_path / "one")
    for whole in (tmp_path / "one", part / "final" / "backbone.safetensors"):
        simulate(tables.config(tmp_path, path, share=share, initial=whole))
    assert said not in caplog.text
    with pytest.raises(UserError, match=r"has no '3\.weight'"):
        simulate(tables.config(tmp_path, path, initial=part))


def test_texts_are_to_become_the_same_ids(tmp_path):
    path = tmp_path / "mood.txt"
    path.write_text("".join(f"{i % 2} word{i} film{i % 7} was{i % 5}\n" for i in range(80)))

    def text(initial=None, **options):
        source = {"name": "text", "options": {"path": str(path), **options}}
        backbone = {"name": "kim", "options": {"embedding": 4, "maps": 2}}
        return check(
            {
                "rounds": 1,
                "data": {"clients": 2, "source": source},
                "model": {"backbone": backbone} | ({"initial": str(initial)} if initial else {}),
                "engine": "inline",
                "output": {"dir": str(tmp_path / "runs")},
            }
        )

    run = simulate(text()).path
    with pytest.raises(UserError, match=r"trained on 40 words of a text, and given 20 here: set "):
        simulate(text(run, max_length=20))
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *VOCABULARY[4:]]
    for name, vocabulary in [("one", words), ("two", [*words[:4], *reversed(words[4:])])]:
        save_tokenizer(tmp_path / name, vocabulary)
    run = simulate(text(tokenizer=str(tmp_path / "one"))).path
    with pytest.raises(UserError, match=r"trained on the tokens of .*one, and given other tokens"):
        simulate(text(run, tokenizer=str(tmp_path / "two")))
    (tmp_path / "one").rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"trained on the tokens of .*one, and given hashed words"):
        simulate(text(run, vocabulary=len(words)))
    simulate(text(run, tokenizer=str(tmp_path / "moved")))
    assert json.loads((run / "run.json").read_text())["inputs"]["tokens"]


IDLE = """
import fedjoint

class Idle(fedjoint.LocalMethod):
    def train(self, job):
        return {}
"""


def test_a_backbone_that_stays_as_it_was_built_is_known_whatever_the_method_and_the_seed(tmp_path):
    (tmp_path / "idle.py").write_text(IDLE)
    local = {"method": f"{tmp_path / 'idle.py'}:Idle"}
    idle = simulate(small.config(tmp_path, seed=5, rounds=1, local=local)).path
    model = {"backbone": {"options": {"hidden": [16, 8]}}, "initial": str(idle)}
    with pytest.raises(UserError, match="its backbone is as it was built: no round has changed it"):
        simulate(small.config(tmp_path, seed=6, model=model))
