"""Adapters (LoRA) on every encoder: their formula, what is trained and stored, merged networks, exact resume."""

import json
import os
import shutil
import signal

import numpy as np
import pytest
import tensorflow as tf
from training import without_export

from appzoo import jobs
from appzoo.cli.reader import JobReader
from appzoo.jobs.trained import merge_adapters, new_app, open_trained
from easytransfer.config.job import RuntimeConfig
from easytransfer.errors import ConfigError, Interrupted, ModelError
from easytransfer.layers.dropout import dropout_seed
from easytransfer.layers.lora import LowRank, without_base
from easytransfer.presets.safetensors_file import read_safetensors
from easytransfer.run.report import RunReporter
from easytransfer.train.engine import Engine
from modelzoo.backbone import Backbone
from modelzoo.commands import make_tiny

FAMILIES = ("bert", "roberta", "albert", "xlnet", "t5")
TARGETS = ["query", "key", "value", "attention_output", "inner", "output"]
ALPHA = 3.0
RANDOM = np.random.default_rng(3)
IDS = RANDOM.integers(7, 20, (2, 5)).astype(np.int32)
BATCH = {"input_ids": IDS, "input_mask": np.ones_like(IDS), "decoder_ids": IDS[:, ::-1]}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("families")
    for family in FAMILIES:
        make_tiny(folder / family, family)
    return folder


def outputs_of(network):
    found = network(BATCH)
    return np.concatenate([found[name].numpy().ravel() for name in ("sequence_output", "logits") if name in found])


def drawn_b(network):
    """Gives every B values, as a training would; returns kernels and what they are with B A: W + alpha / r B A."""
    found = []
    for place, adapter in network.adaptation._pairs:
        adapter.b.assign(0.1 * RANDOM.normal(size=adapter.b.shape))
        a, b = adapter.a.numpy(), adapter.b.numpy()
        change = a.reshape(-1, a.shape[-1]) @ b.reshape(b.shape[0], -1) * ALPHA / a.shape[-1]
        change = change.reshape(*a.shape[:-1], *b.shape[1:])
        # [hidden, heads, size] of XLNet reads heads and sizes.
        found.append(
            (place.kernel, place.kernel.numpy() + (np.moveaxis(change, -1, 0) if place.outputs_first else change))
        )
    return found


def test_an_adapter_is_the_formula():
    layer = LowRank([4, 2, 3], 1, rank=2, alpha=6.0, dropout=0.0, seed=[5], name="query")
    x = RANDOM.normal(size=[2, 5, 4]).astype(np.float32)
    assert not np.any(layer(x)) and np.any(layer.a)
    layer.b.assign(RANDOM.normal(size=[2, 2, 3]))
    a, b = layer.a.numpy(), layer.b.numpy().reshape(2, 6)
    wanted = 6 / 2 * x.reshape(10, 4) @ a @ b
    np.testing.assert_allclose(layer(x).numpy().reshape(10, 6), wanted, atol=1e-5)
    np.testing.assert_allclose(layer.change().numpy().reshape(4, 6), 6 / 2 * a @ b, atol=1e-5)
    # A is drawn from N(0, 1 / inputs), the same for equal seeds.
    wide = LowRank([400, 90], 1, rank=80, alpha=1.0, dropout=0.0, seed=[5], name="wide")
    assert np.std(wide.a) == pytest.approx(400**-0.5, rel=0.02)
    again = LowRank([4, 2, 3], 1, rank=2, alpha=6.0, dropout=0.0, seed=[5], name="query")
    np.testing.assert_array_equal(again.a, a)


def test_dropout_acts_on_what_an_adapter_reads():
    layer = LowRank([50, 3], 1, rank=1, alpha=1.0, dropout=0.4, seed=[5], name="query")
    layer.a.assign(np.eye(50, 1))
    layer.b.assign([[1.0, 2.0, 3.0]])
    with dropout_seed(tf.constant([1, 2])):
        found = layer(tf.ones([300, 50]), training=True).numpy()
    kept = found[:, 0] > 0
    np.testing.assert_allclose(found[kept], np.tile([1 / 0.6, 2 / 0.6, 3 / 0.6], (kept.sum(), 1)), rtol=1e-5)
    assert 0.5 < kept.mean() < 0.7
    np.testing.assert_allclose(layer(tf.ones([1, 50])), [[1, 2, 3]], rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_starts_as_it_was_and_merges(family, folders):
    network = Backbone.from_preset(folders / family)
    before, weights = outputs_of(network), network.export_weights()
    network.add_lora(rank=2, alpha=ALPHA, dropout=0.0, targets=TARGETS, seed=1)
    np.testing.assert_array_equal(outputs_of(network), before)
    wanted = drawn_b(network)
    with pytest.raises(ModelError, match="adapters"):
        network.save_to_preset(folders / "never")
    unmerged = outputs_of(network)
    assert np.abs(unmerged - before).max() > 1e-2
    network.merge_lora()
    np.testing.assert_allclose(outputs_of(network), unmerged, rtol=1e-5, atol=1e-5)
    for kernel, value in wanted:
        np.testing.assert_allclose(kernel, value, atol=1e-6)
    assert len(without_base(network.weights)) == len(network.weights)
    # An ordinary network: its kernels alone are others, all of those named, and another network takes them.
    merged = network.export_weights()
    changed = [name for name, value in weights.items() if not np.array_equal(merged[name], value)]
    assert len(changed) == len(wanted)
    other = Backbone.from_preset(folders / family)
    other.assign_weights(merged)
    np.testing.assert_array_equal(outputs_of(other), outputs_of(network))


def test_t5_writes_with_its_adapters(folders):
    network = Backbone.from_preset(folders / "t5")
    network.add_lora(rank=2, alpha=ALPHA, dropout=0.0, targets=TARGETS, seed=1)
    drawn_b(network)
    taught = network(BATCH)["logits"].numpy()
    next_logits, cache = network.writer(BATCH)
    for place in range(IDS.shape[1]):
        found, cache = next_logits(tf.constant(BATCH["decoder_ids"][:, place]), tf.constant(place), cache)
        np.testing.assert_allclose(found, taught[:, place], rtol=1e-4, atol=1e-4)


def test_adapters_that_cannot_be_are_refused(folders):
    network = Backbone.from_preset(folders / "bert")
    with pytest.raises(ConfigError, match="wider than its kernel"):
        network.add_lora(rank=10_000, alpha=1.0, dropout=0.0, targets=["query"], seed=1)
    with pytest.raises(ConfigError, match="lora_targets.*bias"):
        network.add_lora(rank=1, alpha=1.0, dropout=0.0, targets=["bias"], seed=1)


ROWS = [("good fine nice", "positive"), ("bad poor sad", "negative")] * 8


def job(mode, *arguments):
    return JobReader(mode, list(map(str, arguments)), []).read().config


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A pre-trained model of one's own, which a test may replace."""
    folder = tmp_path_factory.mktemp("base") / "bert"
    make_tiny(folder, "bert")
    return folder


@pytest.fixture
def settings(base, tmp_path):
    table = tmp_path / "rows.tsv"
    table.write_text("".join(f"{text}\t{label}\n" for text, label in ROWS), encoding="utf-8")

    def make(run, name="text_classify_bert", **changes):
        values = {
            "checkpoint_dir": tmp_path / run,
            "data.train_table": table,
            "data.eval_table": table,
            "data.input_schema": "text:str:1,label:str:1",
            "data.first_sequence": "text",
            "data.label_name": "label",
            "data.label_enumerate_values": "negative,positive",
            "data.sequence_length": 8,
            "model.pretrain_model_name_or_path": base,
            "model.lora_rank": 2,
            "model.lora_alpha": ALPHA,
            "train.num_epochs": 3,
            "train.batch_size": 8,
            "train.learning_rate": 5e-3,
            "train.weight_decay_ratio": 0.01,
            "train.log_step_count_steps": 1,
            **changes,
        }
        return job("train", f"--modelName={name}", *(f"--set={key}={value}" for key, value in values.items()))

    return make


def built(config):
    app = new_app(config)
    app.load_assets(None)
    app.build_model()
    return app


def weights(folder):
    return read_safetensors(folder / "weights.safetensors")


def test_a_run_stores_adapters_and_head_and_is_an_ordinary_export(settings, base, tmp_path):
    config = settings("run")
    report = jobs.train(config)
    last = tmp_path / "run" / "model.ckpt-6"
    names = list(weights(last))
    assert len([name for name in names if name.startswith("lora/")]) == 2 * 2 * 2
    assert {name.split("/")[0] for name in names if not name.startswith("lora/")} == {
        "pooler_transform",
        "head",
    } or any("head" in name for name in names)
    assert not any("word_embeddings" in name or "self_attention" in name for name in names)
    # Evaluated anew, from the run and from the export, it is what it was in training.
    predicted = []
    for number, source in enumerate((tmp_path / "run", report["export"])):
        output = tmp_path / f"{number}.tsv"
        jobs.predict(
            job(
                "predict", f"--checkpointPath={source}", f"--inputTable={config.data.train_table}",
                "--inputSchema=text:str:1,label:str:1", f"--outputTable={output}", "--outputSchema=predictions,logits",
            )
        )  # fmt: skip
        predicted.append([line.split("\t") for line in output.read_text().splitlines()])
    assert [row[0] for row in predicted[0]] == [row[0] for row in predicted[1]]
    logits = [np.array([list(map(float, row[1].split(","))) for row in rows]) for rows in predicted]
    np.testing.assert_allclose(*logits, atol=1e-5)
    evaluated = jobs.evaluate(
        job("evaluate", f"--checkpointPath={tmp_path / 'run'}", f"--inputTable={config.data.train_table}",
            "--inputSchema=text:str:1,label:str:1")
    )  # fmt: skip
    assert evaluated["metrics"]["loss"] == pytest.approx(report["metrics"]["loss"], abs=1e-5)
    # The SavedModel holds the variables of an ordinary run: the pre-trained ones and the head.
    exported = tf.saved_model.load(str(report["export"]))
    ordinary = built(settings("never", **{"model.lora_rank": 0, "model.lora_alpha": 8})).model
    assert len(exported.signatures["serving_default"].variables) <= len(ordinary.weights)
    assert not [v for v in exported.signatures["serving_default"].variables if "lora" in v.name]


def test_merged_equals_unmerged(settings):
    app = built(settings("run"))
    drawn_b(app.model.backbone)
    batch = {"input_ids": IDS, "input_mask": np.ones_like(IDS), "segment_ids": np.zeros_like(IDS)}
    unmerged = app.forward(batch)["logits"].numpy()
    merge_adapters(app)
    np.testing.assert_allclose(app.forward(batch)["logits"], unmerged, atol=1e-5)


@pytest.mark.slow
def test_another_base_is_refused(settings, base, tmp_path):
    with without_export():
        jobs.train(settings("run"))
    kept = tmp_path / "kept"
    shutil.copytree(base, kept)
    try:
        shutil.rmtree(base)
        make_tiny(base, "bert", seed=9)
        with pytest.raises(ModelError, match="adapters for other pre-trained weights"):
            open_trained(job("evaluate", f"--checkpointPath={tmp_path / 'run'}", "--inputTable=x"))
        with pytest.raises(ModelError, match="adapters for other pre-trained weights"):
            jobs.train(settings("more", **{"train.init_checkpoint_path": tmp_path / "run"}))
    finally:
        shutil.rmtree(base)
        shutil.copytree(kept, base)
    with without_export():
        jobs.train(settings("more", **{"train.init_checkpoint_path": tmp_path / "run"}))


@pytest.mark.slow
def test_a_stopped_run_goes_on_exactly(settings, tmp_path, monkeypatch):
    with without_export():
        jobs.train(settings("whole", **{"train.ema_decay": 0.5}))
        plain = RunReporter.step

        def stopping(self, step, metrics):
            plain(self, step, metrics)
            if step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        broken = settings("broken", **{"train.ema_decay": 0.5})
        with monkeypatch.context() as patch:
            patch.setattr(RunReporter, "step", stopping)
            with pytest.raises(Interrupted):
                jobs.train(broken)
        jobs.train(broken)
    ends = [weights(tmp_path / name / "model.ckpt-6") for name in ("whole", "broken")]
    assert list(ends[0]) == list(ends[1])
    for name, value in ends[0].items():
        np.testing.assert_array_equal(value, ends[1][name])


def test_freezing_and_decay_concern_what_is_trained(settings):
    config = settings("run", **{"train.num_freezed_layers": 1})
    app = built(config)
    engine = Engine(app, config.train, RuntimeConfig(), 4)
    names = [variable.name for variable in engine.variables()]
    adapters = [name for name in names if name.startswith("lora/")]
    assert adapters == [f"lora/layer_1/{part}/{each}:0" for part in ("query", "value") for each in "ab"]
    others = [name for name in names if name not in adapters]
    assert len(others) == 4 and [name for name in others if "bias" in name] == others[1::2]
    optimizer = engine.optimizers["default"]
    decayed = {v.name for v, rate in zip(optimizer.variables_updated, optimizer.decays, strict=True) if rate}
    assert decayed == {*adapters, *others[::2]}


@pytest.mark.slow
def test_of_a_published_size_little_is_trained():
    """Adapters of rank 8, pooler and head of a MiniLM: at most 2 % are trained, and 3 % stored."""
    from modelzoo.bert.backbone import BertBackbone
    from modelzoo.bert.config import BertConfig

    config = BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    network = BertBackbone(config, seed=None)
    count = sum(int(np.prod(variable.shape)) for variable in network.weights)
    network.add_lora(rank=8, alpha=8.0, dropout=0.0, targets=["query", "value"], seed=0)
    trained = sum(int(np.prod(variable.shape)) for variable in without_base(network.weights))
    assert trained == 6 * 2 * 2 * 384 * 8 + 384 * 384 + 384
    assert trained / count < 0.02


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model.lora_rank": 0, "model.lora_alpha": 4}, "lora_alpha applies where model.lora_rank"),
        ({"model.from_scratch": "true"}, "from_scratch does not go with lora_rank"),
        ({"model.lora_targets": "query,bias"}, "lora_targets"),
    ],
)
def test_settings_that_do_not_fit_are_one_line(settings, changes, message):
    with pytest.raises(ConfigError, match=message):
        settings("run", **changes)


@pytest.mark.parametrize("name", ["text_match_bert", "text_match_bert_two_tower"])
def test_other_applications_on_texts_take_adapters(name, settings):
    changes = {"data.second_sequence": "label"}
    app = built(settings("run", name, **changes))
    assert sum(variable.name.startswith("lora/") for variable in app.model.weights) == 8


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["sequence_labeling/configs/smoke", "text_comprehension/configs/smoke", "text_generation/configs/smoke"]
)
def test_other_smoke_runs_learn_with_adapters(name, tiny_model, repository, tmp_path, monkeypatch):
    monkeypatch.chdir(repository)
    model = tiny_model
    if name.startswith("text_generation"):
        model = tmp_path / "t5"
        source = Backbone.from_preset("examples/text_generation/tiny-t5", weights=False, seed=2)
        from modelzoo.t5.tokenizer import T5Tokenizer

        source.save_to_preset(model, T5Tokenizer.from_folder("examples/text_generation/tiny-t5"))
    values = {
        "checkpoint_dir": tmp_path / "run", "model.pretrain_model_name_or_path": model, "model.lora_rank": 4,
        "model.lora_targets": ",".join(TARGETS), "train.num_epochs": 2, "train.learning_rate": 5e-3,
        "train.log_step_count_steps": 1,
    }  # fmt: skip
    if name.startswith("text_generation"):
        values["model.from_scratch"] = "false"
    jobs.train(job("train", f"--config=appzoo/{name}.yaml", *(f"--set={key}={value}" for key, value in values.items())))
    records = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    losses = [record["loss"] for record in records if record["event"] == "step"]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
