"""Which weights are decayed, by name: every application, every kind of network, every optimizer."""

import numpy as np
import pytest

from appzoo.cli.reader import JobReader
from appzoo.discovery import applications, config_class, load_application
from appzoo.jobs.tables import load_rows, values_of_column
from appzoo.jobs.trained import new_app
from easytransfer.config.job import RuntimeConfig
from easytransfer.data.encoded import EncodedTable
from easytransfer.train.engine import Engine

RATE = 0.1
DECAYING = ["adam", "adamw", "lamb", "sgd"]
IMAGES = EncodedTable(
    {
        "image": np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3)).astype(np.uint8),
        "label_id": np.arange(6, dtype=np.int32) % 3,
        "row_number": np.arange(6, dtype=np.int32),
    }
)
TEXTS = ["how much is it", "where is it"]
PAIR = {"first_sequence": "a", "second_sequence": "b", "label_name": "label"}
# Model and data settings of every model name; BERT stands for the tiny model's folder.
TEXT_APPS = {
    "text_classify_bert": ({}, {"first_sequence": "a", "label_name": "label"}),
    "text_classify_cnn": ({"embedding_size": 4, "num_filters": [3], "filter_sizes": [2]}, {"first_sequence": "a"}),
    "text_match_bert": ({}, PAIR),
    "text_match_bert_two_tower": ({}, PAIR),
    **{f"text_match_{name}": ({"embedding_size": 6, "hidden_size": 4}, PAIR) for name in ("dam", "damplus", "hcnn")},
    "text_match_bicnn": ({"embedding_size": 6, "hidden_size": 4}, PAIR),
    "sequence_labeling_bert": ({"use_crf": True}, {"first_sequence": "a", "label_enumerate_values": "O,B-X,I-X"}),
    "text_comprehension_bert": ({}, {**PAIR, "label_enumerate_values": None}),
    "text_comprehension_bert_hae": ({}, {**PAIR, "label_enumerate_values": None}),
}
NETWORK = {"network": "resnet8_w4_cifar"}
IMAGE_APPS = {
    "image_classify": NETWORK,
    "adversarial_training": NETWORK,
    "co_training": {"members": ["resnet8_w4_cifar", "densenet10_k4_cifar"]},
    "distillation_skd": NETWORK,
    "dimension_pruning": {"network": "prunable_resnet8_w8_cifar"},
}
# Built from their smoke configurations.
OTHER_APPS = {"lane_detection_resa", "lane_detection_baseline", "stereo_matching", "text_pretrain"}
OTHER_APPS |= {"win_prediction"}
ON_REGIONS = {"multimodal_match": "multimodal_match/configs/smoke.yaml"}
ON_REGIONS |= {
    name: f"{name}/configs/smoke.yaml"
    for name in ("referring_expression", "visual_question_answering", "visual_reasoning")
}
ON_REGIONS |= {
    "vl_pretraining_fashion_bert": "vl_pretraining/configs/smoke.yaml",
    "vl_pretraining_lamp": "vl_pretraining/configs/smoke_lamp.yaml",
}
T5_APPS = {"text_generation": "text_generation/configs/smoke.yaml"}
T5_APPS |= {"text_pretrain_t5": "text_pretrain/configs/smoke_t5.yaml"}
STUDENTS = {"distillation_text_bert": "smoke.yaml", "distillation_text_cnn": "smoke_cnn.yaml"}
STUDENTS |= {"distillation_text_labeling": "smoke_labeling.yaml"}
ENCODERS = {name: f"{name}/configs/smoke.yaml" for name in ("meta_distillation", "meta_finetune", "multi_task")}
OTHER_APPS |= {*ON_REGIONS, *T5_APPS, *STUDENTS, *ENCODERS, "domain_transfer", "adabert"}
FEW_SHOT = {"few_shot_pet": "smoke.yaml", "few_shot_p_tuning": "smoke_p_tuning.yaml"}
OTHER_APPS |= {*FEW_SHOT}
OTHER_APPS |= {f"person_reid_{variant}" for variant in ("baseline", "as_gan", "aifl")}


def built(name, **model):
    """An application with its model, ready for training."""
    settings, data = TEXT_APPS.get(name, (IMAGE_APPS.get(name), {}))
    values = {"model_name": name, "train": {"weight_decay_ratio": RATE}}
    values["data"] = {"label_enumerate_values": "no,yes" if name in TEXT_APPS else "cat,dog,owl", **data}
    values["model"] = {**settings, **model}
    if name in IMAGE_APPS:
        values["model"] |= {"image_size": 16}
    if name == "distillation_skd":
        values["distillation"] = {"kd_method": "none"}
    app = load_application(name)(config_class(name).model_validate(values))
    app.load_assets(None, lambda column: TEXTS)
    if name in IMAGE_APPS:
        app.on_train_table(IMAGES)
    app.build_model()
    return app


def built_from_smoke(file, monkeypatch, repository, *further):
    """An application of a smoke configuration with its model, ready for training."""
    monkeypatch.chdir(repository)
    words = [f"--config=appzoo/{file}", f"--set=train.weight_decay_ratio={RATE}", *further]
    app = new_app(JobReader("train", words, []).read().config)
    app.load_assets(None, lambda column: values_of_column(app, app.config.data.train_table, column))
    app.on_train_table(load_rows(app, app.config.data.train_table, True, limit=8).encoded)
    app.build_model()
    return app


def names(app, kind="adamw"):
    """Names of decayed and of other variables; the rate of each optimizer is checked on the way."""
    engine = Engine(app, app.config.train.model_copy(update={"optimizer_type": kind}), RuntimeConfig(), 10)
    decayed, others = set(), set()
    for optimizer in engine.optimizers.values():
        for variable, decay in zip(optimizer.variables_updated, optimizer.decays, strict=True):
            assert decay in (0.0, RATE)
            (decayed if decay else others).add(variable.name.split(":")[0])
    assert len(decayed | others) == len({v.name for v in app.model.trainable_variables})
    return decayed, others


def last_parts(found):
    return {name.rpartition("/")[2] for name in found}


def test_no_application_is_forgotten():
    known = {name for each in applications().values() for name in each.model_names}
    assert {*TEXT_APPS, *IMAGE_APPS, *OTHER_APPS} == known


@pytest.mark.parametrize("name", TEXT_APPS)
def test_text_applications_leave_out_biases_and_layer_normalization(name, tiny_model):
    bert = {"pretrain_model_name_or_path": str(tiny_model)} if "bert" in name else {}
    decayed, others = names(built(name, **bert))
    further = {"transitions"} if name.startswith("sequence") else set()
    assert last_parts(decayed) == {"kernel", "embeddings"} | further
    assert last_parts(others) == ({"bias", "gamma", "beta"} if bert else {"bias"})
    if bert:
        assert {each.split("/")[-2] for each in others if each.endswith(("gamma", "beta"))} == {
            *("layer_norm", "self_attention_layer_norm", "output_layer_norm")
        }


@pytest.mark.parametrize("name", ["image_classify", "distillation_skd", "dimension_pruning"])
def test_image_applications_leave_out_biases_and_batch_normalization(name):
    app = built(name)
    for kind in DECAYING:
        decayed, others = names(app, kind)
        assert last_parts(decayed) == {"kernel"}
        assert last_parts(others) == {"gamma", "beta", "bias"}


def test_adversarial_training_decays_everything():
    app = built("adversarial_training")
    for kind in DECAYING:
        decayed, others = names(app, kind)
        assert last_parts(decayed) == {"kernel", "gamma", "beta", "bias"} and not others


@pytest.mark.parametrize(
    ("network", "scales"),
    [("resnet8_w4_cifar", True), ("densenet10_k4_cifar", False), ("efficientnet_b0_cifar", False)],
)
def test_co_training_decays_scales_but_of_densenet_and_efficientnet(network, scales):
    app = built("co_training", members=[network] * 2)
    for kind in DECAYING:
        decayed, others = names(app, kind)
        assert last_parts(decayed) - {"depthwise_kernel"} == ({"kernel", "gamma"} if scales else {"kernel"})
        assert last_parts(others) == ({"beta", "bias"} if scales else {"beta", "bias", "gamma"})


@pytest.mark.parametrize("variant", ["", "_baseline"])
def test_lane_detection_decays_everything(variant, monkeypatch, repository):
    app = built_from_smoke(f"lane_detection/configs/smoke{variant}.yaml", monkeypatch, repository)
    for kind in DECAYING:
        decayed, others = names(app, kind)
        assert last_parts(decayed) >= {"kernel", "gamma", "beta", "bias"} and not others


def test_stereo_matching_decays_kernels_but_those_of_the_teacher(monkeypatch, repository):
    app = built_from_smoke("stereo_matching/configs/smoke.yaml", monkeypatch, repository)
    for kind in DECAYING:
        decayed, others = names(app, kind)
        assert last_parts(decayed) == {"kernel"} and last_parts(others) == {"gamma", "beta", "bias"}
        assert not [name for name in decayed | others if "/teacher/" in name]


def test_win_prediction_leaves_out_biases_and_the_scale(monkeypatch, repository):
    app = built_from_smoke("win_prediction/configs/smoke.yaml", monkeypatch, repository)
    for kind in DECAYING:
        decayed, others = names(app, kind)
        assert last_parts(decayed) == {"kernel", "recurrent_kernel"}
        assert last_parts(others) == {"bias", "log_scale"}


@pytest.mark.parametrize("variant", ["", "_as_gan", "_aifl"])
def test_person_reid_leaves_out_biases_and_normalization(variant, monkeypatch, repository):
    app = built_from_smoke(f"person_reid/configs/smoke{variant}.yaml", monkeypatch, repository)
    for kind in DECAYING:
        decayed, others = names(app, kind)
        assert last_parts(decayed) == {"kernel"}
        assert last_parts(others) == {"gamma", "beta", "bias"}


def test_pre_training_leaves_out_normalization_and_biases(monkeypatch, repository):
    app = built_from_smoke("text_pretrain/configs/smoke.yaml", monkeypatch, repository)
    for kind in DECAYING:
        decayed, others = names(app, kind)
        assert {"kernel", "pair_kernel"} < last_parts(decayed) and "bias" not in last_parts(decayed)
        assert {"gamma", "beta", "bias", "output_bias", "pair_bias"} <= last_parts(others)


@pytest.mark.parametrize("name", ON_REGIONS)
def test_texts_and_images_leave_out_normalization_and_biases(name, monkeypatch, repository):
    decayed, others = names(built_from_smoke(ON_REGIONS[name], monkeypatch, repository))
    assert {"kernel", "embeddings"} < last_parts(decayed) and not {"bias", "gamma", "beta"} & last_parts(decayed)
    heads = {"output_bias"} if name.startswith("vl_pretraining") else set()
    assert last_parts(others) == {"bias", "gamma", "beta"} | heads


@pytest.mark.parametrize("name", STUDENTS)
def test_students_leave_out_biases_and_layer_normalization(name, monkeypatch, repository):
    alone = ["--set=distillation.kd_loss=none", "--set=distillation.teacher=null"]
    app = built_from_smoke(f"distillation_text/configs/{STUDENTS[name]}", monkeypatch, repository, *alone)
    decayed, others = names(app)
    assert last_parts(decayed) == {"kernel", "embeddings"}
    assert last_parts(others) == ({"bias"} if name.endswith("cnn") else {"bias", "gamma", "beta"})


@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_leave_out_biases_and_layer_normalization(name, monkeypatch, repository, tiny_model):
    small = f"--set=model.pretrain_model_name_or_path={tiny_model}"
    decayed, others = names(built_from_smoke(ENCODERS[name], monkeypatch, repository, small))
    assert last_parts(decayed) == {"kernel", "embeddings"} and last_parts(others) == {"bias", "gamma", "beta"}


def test_domain_transfer_leaves_out_biases_and_layer_normalization(monkeypatch, repository, tiny_model):
    tiny = f"--set=model.pretrain_model_name_or_path={tiny_model}"
    decayed, others = names(built_from_smoke("domain_transfer/configs/smoke.yaml", monkeypatch, repository, tiny))
    assert last_parts(decayed) == {"kernel", "embeddings"} and last_parts(others) == {"bias", "gamma", "beta"}
    assert {"discriminator/hidden/kernel", "discriminator/output/kernel"} <= decayed


@pytest.mark.parametrize("name", FEW_SHOT)
def test_few_shot_leaves_out_biases_and_layer_normalization(name, monkeypatch, repository, tiny_model):
    tiny = f"--set=model.pretrain_model_name_or_path={tiny_model}"
    decayed, others = names(built_from_smoke(f"few_shot/configs/{FEW_SHOT[name]}", monkeypatch, repository, tiny))
    prompts = {"vectors", "recurrent_kernel"} if name.endswith("p_tuning") else set()
    assert last_parts(decayed) == {"kernel", "embeddings"} | prompts
    assert last_parts(others) == {"bias", "gamma", "beta", "output_bias"}


def test_a_search_decays_what_decides_the_network_by_a_rate_of_its_own(monkeypatch, repository):
    app = built_from_smoke(
        "adabert/configs/smoke.yaml", monkeypatch, repository, f"--set=model.arch_weight_decay={RATE}"
    )
    decayed, others = names(app)
    assert last_parts(decayed) == {"kernel", "embeddings", "node_weights", "edges", "depth"}
    assert last_parts(others) == {"bias", "gamma", "beta"}


@pytest.mark.parametrize("name", T5_APPS)
def test_text_to_text_leaves_out_the_scales_of_normalization(name, monkeypatch, repository):
    app = built_from_smoke(T5_APPS[name], monkeypatch, repository)
    for kind in DECAYING:
        decayed, others = names(app, kind)
        assert last_parts(decayed) == {"shared", "positions", "q", "k", "v", "o", "wi", "wo"}
        assert last_parts(others) == {"gamma"}
