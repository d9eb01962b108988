"""Words at masks: patterns on the host and in the graph, scores and losses by hand, prompts, runs and exports."""

import json

import numpy as np
import pytest
import tensorflow as tf

from appzoo import jobs
from appzoo.cli.reader import JobReader
from appzoo.few_shot.network import PromptEncoder
from appzoo.few_shot.pattern import PatternLayout, parts_of, verbalizer_of, verbalizer_pieces
from appzoo.jobs.trained import new_app
from easytransfer.data.schema import parse_schema
from easytransfer.data.table import open_table
from easytransfer.errors import ConfigError, ModelError
from easytransfer.layers.lora import without_base
from easytransfer.presets.safetensors_file import read_safetensors
from easytransfer.text.hiding import TextDraws
from easytransfer.train.step import EVALUATION
from modelzoo.commands import make_tiny

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "it", "was", "good", "bad", "very", "un", "##fit", "film", "."]
PIECES = {word: number for number, word in enumerate(WORDS)}
RANDOM = np.random.default_rng(4)
ROWS = [("film good", "yes"), ("film bad", "no"), ("very good film", "yes"), ("very bad film", "no")] * 2


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base") / "bert"
    make_tiny(folder, "bert", vocab=WORDS)
    return folder


@pytest.fixture
def settings(base, tmp_path):
    """Function (model settings, variant, others) -> configuration of a training."""
    table = tmp_path / "rows.tsv"
    table.write_text("".join(f"{text}\t{label}\n" for text, label in ROWS), encoding="utf-8")

    def make(variant="pet", run="run", **changes):
        values = {
            "checkpoint_dir": tmp_path / run,
            "data.train_table": table,
            "data.eval_table": table,
            "data.input_schema": "text:str:1,label:str:1",
            "data.first_sequence": "text",
            "data.label_name": "label",
            "data.label_enumerate_values": "no,yes",
            "data.sequence_length": 16,
            "model.pretrain_model_name_or_path": base,
            "model.verbalizer": "no:unfit,yes:good",
            "train.num_epochs": 2,
            "train.batch_size": 4,
            "train.learning_rate": 1e-2,
            **changes,
        }
        if "model.pattern" in values:  # YAML takes what begins with a brace for a table
            values["model.pattern"] = json.dumps(values["model.pattern"])
        options = [f"--set={key}={value}" for key, value in values.items()]
        return JobReader("train", [f"--modelName=few_shot_{variant}", *options], []).read().config

    return make


def built(config):
    app = new_app(config)
    app.load_assets(None)
    app.build_model()
    return app


def encoded(app, texts, tmp_path):
    path = tmp_path / "texts.tsv"
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    (chunk,) = open_table(str(path), schema=parse_schema("text:str:1")).chunks()
    return app.encode(chunk, with_labels=False)


def test_patterns_by_hand():
    found = [(part.text, part.spaced) for part in parts_of("{text} It was [MASK]. [P][P] {text2}")]
    assert found == [
        ("{text}", False), ("It was", True), ("[MASK]", True), (".", False), ("[P]", True), ("[P]", False),
        ("{text2}", True),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("It was [MASK]", r"\{text\} 0 times"),
        ("{text} [MASK] [MASK]", r"\[MASK\] 2 times"),
        ("{text} [MASK] {label}", r"\{label\} is no place"),
    ],
)
def test_patterns_that_cannot_be(pattern, message):
    with pytest.raises(ValueError, match=message):
        parts_of(pattern)


def test_verbalizers_by_hand(settings):
    assert verbalizer_of("no:un fit, yes:good", ["yes", "no"]) == ["good", "un fit"]
    assert verbalizer_of("a:b:good,c:bad", ["a:b", "c"]) == ["good", "bad"]
    assert verbalizer_of(None, ["bad", "good"]) == ["bad", "good"]
    for spec, message in (
        ("no:bad", "'yes' has no words"),
        ("no:bad,yes:good,maybe:very", "'maybe' is no label"),
        ("no:bad,no:good", "twice"),
        ("no", "is not label:words"),
    ):
        with pytest.raises(ValueError, match=message):
            verbalizer_of(spec, ["no", "yes"])
    tokenizer = built(settings()).encoder.tokenizer
    assert verbalizer_pieces(["unfit", "good"], ["no", "yes"], tokenizer) == [[10, 11], [7]]
    with pytest.raises(ValueError, match="'nothing' of the label 'no' is not in the vocabulary"):
        verbalizer_pieces(["nothing", "good"], ["no", "yes"], tokenizer)
    with pytest.raises(ValueError, match="'no' and 'yes' have the same pieces"):
        verbalizer_pieces(["Good", "good"], ["no", "yes"], tokenizer)


def test_rows_by_hand_and_in_the_graph(settings, tmp_path):
    # unfit has two pieces, so that [MASK] stands for two masks.
    app = built(settings("p_tuning", **{"model.pattern": "{text} It was [MASK] [P]. [P]"}))
    texts = ["good film", "[MASK] good", "very " * 30]
    table = encoded(app, texts, tmp_path)
    behind = [5, 6, 4, 4, 1, 13, 1, 3]
    assert table.columns["input_ids"][0].tolist() == [2, 7, 12, *behind]
    assert table.columns["slots"][0].tolist() == [0, 0, 0, 0, 0, -1, -2, 1, 0, 2, 0]
    # What looks like a mask in a text is text, and long texts are cut, not the pattern.
    assert 4 not in table.columns["input_ids"][1].tolist()[:-8]
    assert table.columns["input_ids"][2].tolist() == [2, *[9] * 7, *behind]
    assert app.text_counts["truncated"] == 1
    app.save_assets(tmp_path)
    (part,) = app.inputs
    part.serving_module(tmp_path)
    found = part.from_request({"text": tf.constant(texts)})
    for name in ("input_ids", "slots", "segment_ids"):
        for row, length in enumerate(table.columns[name].lengths):
            assert found[name][row, :length].numpy().tolist() == table.columns[name][row].tolist()
    assert found["input_mask"].numpy().sum(axis=1).tolist() == table.columns["input_ids"].lengths.tolist()


def test_pairs_are_cut_and_placed(settings, tmp_path):
    app = built(settings(**{"data.second_sequence": "label", "model.pattern": "{text2} [MASK] {text}"}))
    table = open_table(str(app.config.data.train_table), schema=parse_schema("text:str:1,label:str:1"))
    (chunk,) = table.chunks()
    chunk.columns["text"][0], chunk.columns["label"][0] = "very " * 30, "good bad"
    first = app.inputs[0].encode(chunk).columns["input_ids"][0].tolist()
    assert first == [2, 7, 8, 4, 4, *[9] * 10, 3]


def scores_by_numpy(app, batch):
    """Scores of labels, from the encoder's states and the arrays of the head alone."""
    network = app.model
    states = network.backbone(batch)["sequence_output"]
    logits = network.head(states, network.backbone.input_embeddings)["mlm_logits"].numpy()
    log = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    rows = []
    for row, slots in enumerate(np.asarray(batch["slots"])):
        places = [int(np.flatnonzero(slots == -number)[0]) for number in (1, 2)]
        rows.append([log[row, places[0], 10] + log[row, places[1], 11], log[row, places[0], 7]])
    return np.array(rows)


def arrays(app, tmp_path, texts=("good film", "very bad film")):
    table = encoded(app, texts, tmp_path)
    return {name: tf.constant(value) for name, value in app.model_inputs(table.batch(range(len(texts)))).items()}


def test_scores_are_those_of_the_words_at_the_masks(settings, tmp_path):
    app = built(settings())
    batch = arrays(app, tmp_path)
    logits = app.forward(batch)["logits"].numpy()
    np.testing.assert_allclose(logits, scores_by_numpy(app, batch), atol=1e-5)
    # Of words of one piece, softmax over scores is softmax over the logits of the words (PET, section 3.1).
    app = built(settings(**{"model.verbalizer": "no:bad,yes:good"}))
    batch = arrays(app, tmp_path)
    states = app.model.backbone(batch)["sequence_output"]
    logits = app.model.head(states, app.model.backbone.input_embeddings)["mlm_logits"].numpy()
    place = np.flatnonzero(batch["slots"][0].numpy() == -1)[0]
    wanted = tf.nn.softmax(logits[0, place, [8, 7]]).numpy()
    np.testing.assert_allclose(tf.nn.softmax(app.forward(batch)["logits"])[0], wanted, atol=1e-5)


def test_the_loss_is_that_of_labels_and_hidden_words(settings, tmp_path):
    app = built(settings(**{"model.mlm_alpha": 0.25, "model.mlm_probability": 0.4}))
    batch = arrays(app, tmp_path)
    (part,) = app.inputs
    hidden = part.augment(batch, TextDraws(batch["input_ids"], batch["input_mask"], 3))
    # Neither masks nor special pieces are hidden, and the row that labels are read from is whole.
    np.testing.assert_array_equal(hidden["input_ids"], batch["input_ids"])
    assert np.any(hidden["hidden_input_ids"] != batch["input_ids"])
    assert not np.isin(hidden["hidden_ids"].numpy()[hidden["hidden_weights"].numpy() > 0], range(5)).any()
    labels, weight = tf.constant([1, 0]), tf.constant([1.0, 0.5])
    full = {**hidden, "label_id": labels, "example_weight": weight}
    losses = app.losses(full, app.forward(full), EVALUATION)
    scores = scores_by_numpy(app, batch)
    cross = np.log(np.exp(scores).sum(axis=1)) - scores[[0, 1], [1, 0]]
    assert float(losses["loss"].sum / losses["loss"].weight) == pytest.approx(0.75 * (cross @ [1, 0.5]) / 1.5, abs=1e-5)
    states = app.model.backbone({**batch, "input_ids": hidden["hidden_input_ids"]})["sequence_output"]
    logits = app.model.head(states, app.model.backbone.input_embeddings)["mlm_logits"].numpy()
    log = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    nll, count = 0.0, 0.0
    for row, share in enumerate((1, 0.5)):
        for place, piece, real in zip(
            *(hidden[f"hidden_{name}"].numpy()[row] for name in ("positions", "ids", "weights")), strict=True
        ):
            nll, count = nll - share * real * log[row, place, piece], count + share * real
    assert float(losses["mlm_loss"].sum / losses["mlm_loss"].weight) == pytest.approx(0.25 * nll / count, abs=1e-5)
    # Outside of training the whole cross entropy is the loss.
    plain = {**batch, "label_id": labels, "example_weight": weight}
    loss = app.losses(plain, app.forward(plain), EVALUATION)
    assert list(loss) == ["loss"]
    assert float(loss["loss"].sum / loss["loss"].weight) == pytest.approx((cross @ [1, 0.5]) / 1.5, abs=1e-5)


@pytest.mark.parametrize("kind", ["lstm", "mlp", "none"])
def test_prompts_are_the_formula(kind):
    layer = PromptEncoder(3, 5, kind, seed=1)
    found = layer(tf.constant([[1, 3], [2, 1]])).numpy()
    x = layer.vectors.numpy()
    if kind == "lstm":
        ways = []
        for cell, order in ((layer.lstm.forward_layer, 1), (layer.lstm.backward_layer, -1)):
            kernel, recurrent, bias = (value.numpy() for value in cell.weights)
            h, c, states = np.zeros(3), np.zeros(3), []
            for vector in x[::order]:
                i, f, g, o = np.split(vector @ kernel + h @ recurrent + bias, 4)
                i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
                c = f * c + i * np.tanh(g)
                h = o * np.tanh(c)
                states.append(h)
            ways.append(np.array(states)[::order])
        x = np.concatenate(ways, axis=1)
    if kind != "none":
        (w1, b1), (w2, b2) = ([value.numpy() for value in dense.weights] for dense in layer.dense)
        x = np.maximum(x @ w1 + b1, 0) @ w2 + b2
    np.testing.assert_allclose(found, x[[[0, 2], [1, 0]]], atol=1e-6)


def test_prompts_take_the_place_of_word_embeddings(settings, tmp_path):
    app = built(settings("p_tuning", **{"model.prompt_encoder": "none"}))
    batch = arrays(app, tmp_path)
    network, table = app.model, app.model.backbone.input_embeddings.numpy()
    before = app.forward(batch)["logits"].numpy()
    # Prompts that are embeddings of words answer like a row with these words.
    network.prompts.vectors.assign(table[[9, 9, 7]])
    slots, ids = batch["slots"].numpy(), batch["input_ids"].numpy().copy()
    for number, piece in ((1, 9), (2, 9), (3, 7)):
        ids[slots == number] = piece
    states = network.backbone({**batch, "input_ids": ids})["sequence_output"]
    words = network.head(states, table)["mlm_logits"].numpy()
    log = words - np.log(np.exp(words).sum(axis=-1, keepdims=True))
    place = int(np.flatnonzero(slots[0] == -1)[0])
    after = app.forward(batch)["logits"].numpy()
    np.testing.assert_allclose(after[0, 1], log[0, place, 7], atol=1e-5)
    assert np.abs(after - before).max() > 1e-4


@pytest.mark.parametrize(
    ("variant", "changes", "message"),
    [
        ("pet", {"model.pattern": "{text} {text2} [MASK]"}, "second_sequence belong together"),
        ("pet", {"model.pattern": "{text} [P] [MASK]"}, "few_shot_p_tuning trains"),
        ("p_tuning", {"model.pattern": "{text} [MASK]"}, r"needs \[P\]"),
        ("p_tuning", {"model.train_encoder": "false", "model.lora_rank": 1}, "remove one"),
        ("pet", {"model.dropout_rate": 0.1}, "dropout_rate"),
    ],
)
def test_settings_that_do_not_fit(variant, changes, message, settings):
    with pytest.raises(ConfigError, match=message):
        settings(variant, **changes)


def test_words_and_room_are_checked(settings, tmp_path):
    with pytest.raises(ConfigError, match="'fine' of the label 'yes' is not in the vocabulary"):
        built(settings(**{"model.verbalizer": "no:bad,yes:fine"}))
    with pytest.raises(ConfigError, match="leaves no room for text"):
        built(settings(**{"data.sequence_length": 7}))
    make_tiny(tmp_path / "xlnet", "xlnet")
    with pytest.raises((ModelError, ConfigError), match="xlnet|vocabulary"):
        built(settings(**{"model.pretrain_model_name_or_path": tmp_path / "xlnet"}))


@pytest.mark.slow
def test_prompts_alone_are_trained_stored_and_exported(settings, base, tmp_path):
    config = settings("p_tuning", **{"model.train_encoder": "false", "train.num_epochs": 1})
    report = jobs.train(config)
    stored = read_safetensors(tmp_path / "run" / "model.ckpt-2" / "weights.safetensors")
    assert stored and all("prompts" in name or "lstm" in name or name.startswith(("inner", "outer")) for name in stored)
    app = built(config)
    assert len(without_base(app.model.weights)) == len(stored)
    answers = []
    for number, source in enumerate((tmp_path / "run", report["export"])):
        output = tmp_path / f"{number}.tsv"
        jobs.predict(
            JobReader(
                "predict",
                [
                    f"--checkpointPath={source}", f"--inputTable={config.data.train_table}",
                    "--inputSchema=text:str:1,label:str:1", f"--outputTable={output}",
                    "--outputSchema=predictions,logits",
                ],
                [],
            ).read().config
        )  # fmt: skip
        rows = [line.split("\t") for line in output.read_text().splitlines()]
        answers.append(np.array([list(map(float, logits.split(","))) for _, logits in rows]))
        assert {label for label, _ in rows} <= {"no", "yes"}
    np.testing.assert_allclose(*answers, atol=1e-5)


def test_layouts_of_other_families_keep_their_places(tmp_path):
    make_tiny(tmp_path / "albert", "albert")
    from modelzoo.loading import load_tokenizer

    tokenizer = load_tokenizer(tmp_path / "albert")
    found = PatternLayout.of("{text} [MASK]", tokenizer, 1)
    names = [name for name, _ in found.layout.single]
    assert names[0] == "cls" and names[1] == "first" and names[-1] == "sep" and len(names) == 4
    assert found.ids[names[2]] == tokenizer.mask_id and found.slots[names[2]] == -1
