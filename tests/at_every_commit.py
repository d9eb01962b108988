"""What is left to `sh scripts/test.sh --all`, with what guards it meanwhile: every commit runs the rest."""

from __future__ import annotations

from appzoo import discovery

# In place of the first variant, where that has the network of another application: text_classify has it on one text.
VARIANTS = {"text_match": "dam"}
# Tables, network and signatures are those of image_classify, which is trained. Their losses, plans and reports have
# tests of their own, `tests/appzoo/test_<application>*.py`, and two workers of each train in `tests/distributed`.
ONLY_IN_ALL = {"adversarial_training", "co_training", "distillation_skd"}
# Their networks are large for a contract of a minute. Toys have the same kinds of inputs, targets, optimizers and
# stages at every commit, and parts, losses, files, pages and shapes of requests have tests of their own there.
ONLY_IN_ALL |= {"dimension_pruning", "lane_detection", "person_reid", "stereo_matching", "text_generation"}
# Their network and input are those of text_classify with another head, or of text_generation; targets, metrics, files
# and served answers have tests of their own, `tests/appzoo/test_<application>*.py`, on tiny encoders.
ONLY_IN_ALL |= {"text_pretrain", "text_comprehension", "sequence_labeling"}
# Rows, requests, heads, losses and metrics have tests of their own on networks of random weights; regions beside words
# are trained in a toy.
ONLY_IN_ALL |= {"referring_expression", "visual_question_answering", "visual_reasoning"}
# Networks on texts and regions: inputs, labels, metrics and requests have tests of their own, as have the networks.
ONLY_IN_ALL |= {"multimodal_match"}
# Its network, inputs and signatures are those of multimodal_match; masks, losses, pairs and metrics have tests of their
# own, and two workers of it train in `tests/distributed`.
ONLY_IN_ALL |= {"vl_pretraining"}
# Its network and inputs are those of text_classify; losses, teachers, layers, cache and stages have tests of their own.
ONLY_IN_ALL |= {"distillation_text"}
# Its network and inputs are those of text_classify; weights, domains, losses and what starts from it have tests.
ONLY_IN_ALL |= {"meta_finetune"}
# So are its network and inputs; weights, losses of all stages, meta-teachers and rows of one domain have tests.
ONLY_IN_ALL |= {"meta_distillation"}
# So are its network and inputs; tables, streams, losses and algorithms have tests of their own.
ONLY_IN_ALL |= {"domain_transfer"}
# Its target and signatures are those of text_classify, its network that of text_pretrain; patterns, scores, losses and
# prompts have tests of their own on tiny encoders.
ONLY_IN_ALL |= {"few_shot"}
# Its network is that of text_classify with more heads; tables, plans, losses, metrics and signatures have tests.
ONLY_IN_ALL |= {"multi_task"}
# Its inputs and target are those of distillation_text; operations, samples, losses, derivation and steps have tests.
ONLY_IN_ALL |= {"adabert"}
# A result file of its own, two optimizers, and a text that is decoded.
TOYS = {"maps", "gan", "writing"}
# Files of tests that `--all` runs -> files that guard the same at every commit, in smaller networks or shorter ways.
FILES = {
    "distributed/test_bert_parallel.py": (
        "distributed/test_model_parallel.py",
        "distributed/test_networks_on_workers.py",
    ),
    "distributed/test_elastic.py": ("distributed/test_launch.py", "distributed/test_int8_wire.py"),
    "integration/test_export_variants.py": (
        "easytransfer/test_stored_weights.py",
        "easytransfer/test_compiled_export.py",
    ),
    "integration/test_original_deep_text.py": ("appzoo/test_text_match_words.py", "appzoo/test_text_classify_cnn.py"),
    "integration/test_original_text_comprehension.py": (
        "integration/test_original_commands.py",
        "appzoo/test_text_comprehension.py",
    ),
    "integration/test_original_text_match.py": (
        "integration/test_original_commands.py",
        "appzoo/test_text_match.py",
    ),
    "integration/test_original_user_defined.py": (
        "easytransfer/test_compat_application.py",
        "easytransfer/test_compat_text.py",
    ),
}


def variant_of(application: str) -> str | None:
    """Returns the variant of an application whose smoke configuration is run at every commit, None if none is."""
    if application in ONLY_IN_ALL:
        return None
    return VARIANTS.get(application, next(iter(discovery.applications()[application].variants)))
