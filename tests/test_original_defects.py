"""The register of what the original EasyTransfer did wrong, and the tests that keep it from coming back.

Keys: `12.n` is row n of the table of bad input (section 12 of the specification), `6.2.n` correction n of section 6.2,
any other key the section that remarks on it. A defect whose subject is not built yet names that subject instead. It is
one register, and therefore one long file.
"""

from __future__ import annotations

import ast
import functools
from pathlib import Path
from typing import NamedTuple

import pytest


class Defect(NamedTuple):
    """What was wrong; the tests that guard it, `file below tests/::test`; or the subject it belongs to later."""

    what: str
    tests: tuple[str, ...] = ()
    later: str = ""


def guarded(what: str, *tests: str) -> Defect:
    return Defect(what, tests)


def later(what: str, subject: str) -> Defect:
    return Defect(what, later=subject)


PRETRAINING = "pre-training: data creation, training, perplexity"
DISTILLATION = "knowledge distillation and the other transfer-learning algorithms"
DISTRIBUTION = "distribution: Horovod data and model parallelism"

BAD_INPUT = {
    "12.1": guarded(
        "an unknown application or mode gave an empty error after a stack trace",
        "appzoo/test_cli_discovery.py::test_unknown_applications_name_the_nearest",
        "integration/test_original_failures.py::test_original_wrong_names_gave_an_empty_error_after_a_trace",
        "easytransfer/test_compat_config.py::test_unknown_mode_names_the_nearest",
    ),
    "12.2": guarded(
        "training without an application trained a text matcher",
        "integration/test_original_failures.py::test_original_trained_a_text_matcher_without_a_model_name",
    ),
    "12.3": guarded(
        "unknown keys of advancedParameters were ignored, odd characters cut off the rest",
        "easytransfer/test_config_advanced.py::test_wrong_keys",
        "easytransfer/test_config_advanced.py::test_nothing_is_cut_off_or_ignored",
        "easytransfer/test_config_advanced.py::test_original_text_is_read_completely",
    ),
    "12.4": guarded(
        "the text false meant true",
        "easytransfer/test_compat_config.py::test_original_false_in_quotes_is_false",
        "easytransfer/test_config_values.py::test_text_and_yaml_values_get_their_meaning",
    ),
    "12.5": guarded(
        "one table where training needs two gave an unpack error",
        "appzoo/test_cli_reader.py::test_input_table_in_train_may_be_the_training_table_alone",
        "integration/test_bad_input.py::test_wrong_names_are_answered_with_the_nearest",
    ),
    "12.6": guarded(
        "a row with too few or too many columns gave an IndexError",
        "easytransfer/test_data_tables.py::test_wrong_column_count_names_the_separator",
        "integration/test_bad_input.py::test_a_table_that_cannot_be_used_ends_with_one_line",
        "integration/test_bad_input.py::test_every_application_refuses_unusable_tables",
    ),
    "12.7": guarded(
        "a label that is not in the list gave a KeyError",
        "appzoo/test_text_classify.py::test_unknown_labels_are_bad_rows_and_everything_is_counted",
        "easytransfer/test_compat_text.py::test_bad_rows_stop_or_are_counted_once",
    ),
    "12.8": guarded(
        "empty cells were a bare assertion, an empty sequence, or silently 0",
        "easytransfer/test_data_tables.py::test_empty_text_is_allowed_and_counted",
        "easytransfer/test_data_tables.py::test_cells",
        "integration/test_bad_input.py::test_a_table_that_cannot_be_used_ends_with_one_line",
    ),
    "12.9": guarded(
        "an empty table gave an index error, or a save interval of 0",
        "integration/test_bad_input.py::test_every_application_refuses_unusable_tables",
        "easytransfer/test_compat_application.py::test_an_empty_table_is_refused_before_a_model_is_built",
        "integration/test_original_failures.py::test_original_save_interval_of_a_tiny_table_was_zero",
    ),
    "12.10": guarded(
        "a missing checkpoint was replaced by random weights",
        "modelzoo/test_bert_formats.py::test_missing_weights_are_never_silently_random",
        "easytransfer/test_compat_application.py::test_original_missing_checkpoint_is_not_replaced_by_random_weights",
        "easytransfer/test_checkpoint.py::test_resolve_by_every_name",
    ),
    "12.11": guarded(
        "a checkpoint of another size was loaded in part",
        "modelzoo/test_bert_formats.py::test_checkpoint_of_another_size",
        "easytransfer/test_checkpoint.py::test_mismatches_are_listed_and_nothing_is_assigned",
        "easytransfer/test_compat_application.py::test_checkpoint_of_another_model_is_refused",
    ),
    "12.12": guarded(
        "a run with another configuration was trained on, its configuration file kept",
        "easytransfer/test_run_folder.py::test_other_configuration_is_refused_by_name",
        "easytransfer/test_compat_application.py::test_original_run_folder_of_another_configuration_is_refused",
        "appzoo/test_cli_reader.py::test_existing_run_of_another_configuration",
    ),
    "12.13": guarded(
        "several workers read every row of a file and wrote one output",
        "appzoo/test_features.py::test_original_every_worker_read_everything",
        "appzoo/test_preprocess.py::test_workers_predict_one_table",
        "easytransfer/test_data_batches.py::test_all_workers_together_see_every_row_once",
        "easytransfer/test_compat_datasets.py::test_slices_are_disjoint_and_complete",
    ),
    "12.14": guarded(
        "answers at a wrong offset and windows without an answer were dropped",
        "appzoo/test_text_comprehension.py::"
        "test_original_dropped_windows_and_questions_silently_every_question_is_kept_or_counted",
        "appzoo/test_text_comprehension.py::test_bad_answers_reject_their_question_only_and_are_counted_by_kind",
        "appzoo/test_text_comprehension.py::test_chinese_offsets_and_bad_rows_of_cmrc",
    ),
    "12.15": guarded(
        "as many tags as words were taken for granted",
        "appzoo/test_sequence_labeling.py::test_original_raised_index_error_for_a_wrong_number_of_tags",
    ),
    "12.16": guarded(
        "too long a text was cut silently",
        "appzoo/test_text_classify.py::test_truncation_and_unknown_tokens_are_counted",
        "appzoo/test_text_classify.py::test_no_truncate_rejects_long_rows",
        "appzoo/test_text_match.py::test_long_texts_of_either_side_are_bad_rows_on_request",
    ),
    "12.17": guarded(
        "an unknown column to append was dropped, or crashed when written",
        "appzoo/test_features.py::test_original_unknown_append_cols_were_dropped",
        "appzoo/test_cli_reader.py::test_predict_checks",
    ),
    "12.18": guarded(
        "an export that failed after training was logged, with success as the exit code",
        "integration/test_original_failures.py::test_original_failed_export_ended_with_success",
        "easytransfer/test_export.py::test_failed_check_publishes_nothing",
    ),
    "12.19": guarded(
        "regression with export of the best checkpoint asked for a metric of classification",
        "integration/test_original_failures.py::test_original_regression_broke_when_the_best_checkpoint_was_exported",
        "easytransfer/test_metrics.py::test_main_metric_is_checked_at_the_start",
    ),
    "12.20": guarded(
        "a full disk or an output that exists left a partial file",
        "easytransfer/test_data_writers.py::test_a_full_disk_is_a_resource_error",
        "easytransfer/test_data_writers.py::test_existing_output_is_refused_and_kept",
        "easytransfer/test_data_writers.py::test_unwritable_folders_are_found_before_any_work",
        "easytransfer/test_run_folder.py::test_disk_space_and_place_are_checked_before_anything_is_written",
        "easytransfer/test_checkpoint.py::test_full_disk_is_a_resource_error",
    ),
    "12.21": guarded(
        "an interrupted or corrupt download was used",
        "modelzoo/test_zoo_commands.py::test_fetch_resumes_where_it_stopped",
        "modelzoo/test_zoo_commands.py::test_fetch_deletes_a_file_with_the_wrong_checksum",
    ),
    "12.22": guarded(
        "the metrics of both pre-training tasks together were not returned",
        "easytransfer/test_metrics_original.py::test_original_both_pretraining_metrics_together_are_returned",
    ),
    "12.23": guarded(
        "memory that ran out was a dump of the framework",
        "easytransfer/test_train_trainer.py::test_out_of_memory_names_settings_that_need_less",
    ),
    "12.24": guarded(
        "training went on after a loss that is not finite",
        "easytransfer/test_train_trainer.py::test_non_finite_loss_stops_with_the_offending_batch",
        "easytransfer/test_train_engine.py::test_float32_stops_moving_at_the_first_failed_step",
    ),
    "12.25": guarded(
        "a separator inside a question or answer shifted the pairs",
        "appzoo/test_text_comprehension.py::"
        "test_original_shifted_pairs_after_a_separator_in_the_text_odd_parts_are_a_bad_row",
        "appzoo/test_text_comprehension.py::test_json_lists_carry_any_text",
    ),
    "12.26": guarded(
        "an empty answer or one beyond the context gave a wrong word or an IndexError",
        "appzoo/test_text_comprehension.py::test_original_took_a_wrong_word_or_failed_for_misplaced_answers",
    ),
    "12.27": guarded(
        "other encodings, byte order marks, CRLF and NUL crashed the decoder",
        "easytransfer/test_data_tables.py::test_bom_crlf_and_missing_last_line_end",
        "easytransfer/test_data_tables.py::test_utf16_is_named",
        "integration/test_bad_input.py::test_what_is_only_written_in_another_way_is_read",
        "integration/test_bad_input.py::test_a_table_that_cannot_be_used_ends_with_one_line",
    ),
}

APPLICATIONS = {
    "6.2.1 prediction": guarded(
        "regression predicted the class of one logit, a constant",
        "appzoo/test_text_classify.py::test_original_regression_predicted_a_constant_it_is_the_value",
        "integration/test_original_failures.py::test_original_regression_broke_when_the_best_checkpoint_was_exported",
    ),
    "6.2.1 matching": guarded(
        "matching computed its mean square error from that constant",
        "appzoo/test_text_match_words.py::test_original_matching_regression_mse_came_from_a_constant",
        "appzoo/test_text_match.py::test_original_mse_came_from_a_constant_class_it_is_that_of_the_cosine",
        "easytransfer/test_metrics_original.py::test_match_of_three_classes_and_of_a_score",
    ),
    "6.2.2 labels": guarded(
        "in-batch negatives ignored the labels and equal texts",
        "appzoo/test_text_match.py::test_original_in_batch_negatives_ignored_the_label",
        "appzoo/test_text_match.py::test_fillers_and_duplicates_do_not_change_the_loss",
    ),
    "6.2.2 towers": guarded(
        "the second text of two towers had no [CLS] and segment 1",
        "appzoo/test_text_match.py::test_original_two_towers_were_encoded_differently_a_text_has_one_vector",
        "easytransfer/test_compat_text.py::test_paired_texts_are_both_encoded_from_cls",
    ),
    "6.2.2 export": guarded(
        "two towers could not be exported",
        "integration/test_original_text_match.py::test_original_export_of_two_towers_raised_not_implemented",
    ),
    "6.2.3 masks": guarded(
        "TextCNN and BiCNN looked at padding",
        "easytransfer/test_layers_words.py::test_original_textcnn_ignored_masks",
        "easytransfer/test_layers_words.py::test_original_bicnn_ignored_masks",
    ),
    "6.2.3 penalty": guarded(
        "the L2 penalty of HCNN was never added to the loss",
        "appzoo/test_text_match_words.py::test_original_hcnn_l2_penalty_was_not_in_the_loss",
    ),
    "6.2.4 loss": guarded(
        "the labelling loss was divided by all positions",
        "appzoo/test_sequence_labeling.py::test_original_divided_the_loss_by_all_positions",
        "easytransfer/test_losses_original.py::test_original_sequence_labeling_loss_averages_over_tags",
    ),
    "6.2.4 pieces": guarded(
        "a label was copied to all pieces of its word",
        "appzoo/test_sequence_labeling.py::test_original_copied_the_label_to_all_pieces_now_an_option",
        "appzoo/test_sequence_labeling.py::test_original_shifted_tags_where_a_word_had_no_pieces",
    ),
    "6.2.4 long": guarded(
        "words beyond the limit got the last label",
        "appzoo/test_sequence_labeling.py::test_original_gave_words_beyond_the_limit_the_last_label",
    ),
    "6.2.5 rows": guarded(
        "windows and questions without an answer disappeared",
        "appzoo/test_text_comprehension.py::test_every_question_becomes_a_row_of_its_own",
        "appzoo/test_text_comprehension_results.py::test_original_wrote_a_row_per_window_there_is_one_per_question",
        "appzoo/test_text_comprehension.py::test_merged_answers_equal_a_brute_force_over_all_windows",
    ),
    "6.2.5 loss": guarded(
        "positions [batch, 1] were broadcast, which mixed the examples of a batch",
        "easytransfer/test_losses_comprehension.py::test_original_loss_mixed_the_examples_of_a_batch",
        "easytransfer/test_losses_original.py::test_original_comprehension_loss_pairs_each_row_with_itself",
    ),
    "6.2.5 dropout": guarded(
        "conversational comprehension dropped out in prediction, too",
        "appzoo/test_text_comprehension_hae.py::test_original_hae_dropped_out_in_prediction_too",
    ),
    "6.2.5 labels": guarded(
        "conversational comprehension could not predict without answers",
        "appzoo/test_text_comprehension_hae.py::test_original_prediction_needed_labels",
    ),
    "6.2.6": guarded(
        "more labels than max_num_labels were cut; the threshold was fixed",
        "appzoo/test_text_classify.py::test_original_cut_surplus_labels_they_are_a_bad_row",
        "appzoo/test_text_classify.py::test_multi_label_reads_lists_and_predicts_above_the_threshold",
        "easytransfer/test_metrics.py::test_best_threshold_agrees_with_trying_all",
    ),
    "6.2.7": guarded(
        "nothing was said about tokens the model does not know",
        "integration/test_original_failures.py::test_original_said_nothing_about_a_tokenizer_for_another_language",
        "appzoo/test_text_classify.py::test_truncation_and_unknown_tokens_are_counted",
    ),
    "6.2.8 crf": guarded(
        "there was no labelling with a CRF",
        "appzoo/test_sequence_labeling.py::test_crf_loss_and_prediction_are_those_of_the_words",
    ),
    "6.2.8 others": later(
        "there were no prompts, no generation, no contrastive sentence embedding, no multi-task application",
        "applications the original did not have: prompts, T5 generation, sentence embedding, multi-task",
    ),
    "6.1 bicnn": guarded(
        "BiCNN summed the embeddings over the wrong axis",
        "easytransfer/test_layers_words.py::test_original_bicnn_summed_the_wrong_axis",
    ),
    "6.1 hcnn": guarded(
        "the reshape of HCNN divided to a fraction and failed on Python 3",
        "easytransfer/test_layers_words.py::test_original_hcnn_reshape_divided_to_a_fraction",
    ),
    "6.3 history": guarded(
        "a turn that cannot be answered marked the last word",
        "appzoo/test_text_comprehension_hae.py::test_original_marked_the_last_word_for_an_unanswerable_turn",
    ),
    "6.3 vectors": guarded(
        "vectors of second texts were not those of training",
        "appzoo/test_features.py::test_original_second_texts_were_encoded_differently",
    ),
}

REMARKS = {
    "2.2 flags": guarded(
        "flags without meaning in a mode were ignored",
        "appzoo/test_cli_reader.py::test_a_flag_without_meaning_in_the_mode_warns",
        "easytransfer/test_config_advanced.py::test_unknown_flags_name_the_nearest",
    ),
    "2.6 evaluate": guarded(
        "evaluation only logged its metrics",
        "appzoo/test_cli_main.py::test_result_is_one_json_line_on_stdout_and_the_rest_on_stderr",
        "integration/test_original_commands.py::test_evaluate",
    ),
    "2.6 predict": guarded(
        "prediction from a checkpoint wrote ids, from an export names",
        "integration/test_original_commands.py::test_predict_from_the_run_and_from_its_export_agree",
        "appzoo/test_contract.py::test_export_answers_like_the_model",
    ),
    "2.6 comprehension": guarded(
        "comprehension could be trained on id tables only",
        "integration/test_original_text_comprehension.py::test_single_questions_from_id_tables_to_evaluation",
        "appzoo/test_contract.py::test_smoke_run_learns_and_reaches_its_score",
    ),
    "2.8 order": guarded(
        "serialization did not keep the order of rows",
        "integration/test_original_serialization.py::test_original_rows_came_back_in_any_order",
        "appzoo/test_preprocess.py::test_rows_keep_their_order_and_appended_columns",
    ),
    "2.8 conversion": guarded(
        "conversion lost dropout and activation, and ignored what did not match",
        "integration/test_original_conversion.py::test_original_conversion_lost_configuration_keys",
        "integration/test_original_conversion.py::test_wrong_conversions_are_told",
        "modelzoo/test_bert_formats.py::test_missing_weight",
    ),
    "3 keys": guarded(
        "mistyped keys of a JSON configuration were ignored",
        "easytransfer/test_compat_config.py::test_stray_keys_warn_with_their_path_and_the_nearest_key",
        "easytransfer/test_compat_config.py::test_unknown_keys_are_errors_with_a_schema_version",
    ),
    "4.1 labels": guarded(
        "prediction and export needed a fake label",
        "easytransfer/test_compat_application.py::test_original_fake_label_is_not_needed_to_predict",
        "easytransfer/test_compat_text.py::test_a_feature_extractor_needs_no_checkpoint_of_its_own",
    ),
    "4.1 tvars": guarded(
        "what `tvars` leaves out must not move",
        "easytransfer/test_compat_application.py::test_tvars_limits_what_is_trained",
    ),
    "4.2 epochs": guarded(
        "repeating before shuffling let epochs blend into each other",
        "easytransfer/test_compat_datasets.py::test_shuffling_shows_every_row_once",
        "easytransfer/test_train_trainer.py::test_every_row_once_per_epoch_in_both_orders_of_looking",
    ),
    "4.2 writers": guarded(
        "a job that fails left half a table",
        "easytransfer/test_data_writers.py::test_a_failed_job_leaves_nothing_and_an_empty_one_a_table",
        "easytransfer/test_compat_application.py::test_writer_gets_predictions_and_input_columns_in_order",
    ),
    "4.3 casing": guarded(
        "text was lower-cased for every model",
        "easytransfer/test_text_vocabulary.py::test_casing_comes_from_the_files",
    ),
    "4.3 vectors": guarded(
        "bad lines of a word vector file were skipped",
        "easytransfer/test_words.py::test_original_skipped_bad_vectors_they_are_errors_with_a_line",
    ),
    "4.5 one row": guarded(
        "labels of a batch of one row lost their axis",
        "easytransfer/test_losses.py::test_original_softmax_cross_entropy_of_one_row",
    ),
    "4.6 auc": guarded(
        "AUC was computed from predicted classes",
        "easytransfer/test_metrics_original.py::test_original_auc_of_predicted_classes_is_not_the_auc",
        "appzoo/test_text_match_metrics.py::test_original_auc_was_fed_hard_predictions_it_is_that_of_the_scores",
    ),
    "4.6 batches": guarded(
        "metrics depended on the batch size and on the last partial batch",
        "easytransfer/test_metrics.py::test_result_does_not_depend_on_the_batches",
        "easytransfer/test_train_trainer.py::test_evaluation_does_not_depend_on_the_batch_size",
    ),
    "4.7 beta2": guarded(
        "Adam without weight decay had another beta2, which nobody was told",
        "easytransfer/test_optim_update.py::test_build_optimizer",
    ),
    "4.7 freezing": guarded(
        "frozen layers still decayed and embeddings were never frozen",
        "easytransfer/test_train_engine.py::test_frozen_layers_do_not_move_and_have_no_slots",
    ),
    "4.7 clipping": guarded(
        "gradients were clipped per tower, before they were averaged",
        "easytransfer/test_train_engine.py::test_mean_then_clip_then_update_against_numpy",
    ),
    "4.8 steps": guarded(
        "one step too many was made, and the save interval of tiny data was 0",
        "integration/test_original_failures.py::test_original_save_interval_of_a_tiny_table_was_zero",
    ),
    "4.8 resume": guarded(
        "a resumed run started its data again",
        "easytransfer/test_train_resume.py::test_signal_saves_at_the_step_and_the_resumed_run_ends_the_same",
        "appzoo/test_contract.py::test_stopped_and_resumed_run_equals_an_unbroken_one",
    ),
    "4.8 seed": guarded(
        "the seed was a constant",
        "easytransfer/test_compat_application.py::test_a_seed_repeats_and_another_one_does_not",
        "easytransfer/test_train_resume.py::test_same_seed_repeats_bit_by_bit_and_another_does_not",
    ),
    "5.1 type": guarded(
        "the family of a model was guessed from its name",
        "modelzoo/test_bert_config.py::test_chinese_roberta_of_easytransfer_is_a_bert_and_hugging_face_roberta_is_not",
    ),
    "5.1 loading": guarded(
        "weights that do not fit were ignored after a log line",
        "modelzoo/test_bert_formats.py::test_missing_weight",
        "modelzoo/test_bert_formats.py::test_more_layers_than_the_file",
    ),
    "7.1 mse": guarded(
        "the distance of logits was summed over the batch",
        "easytransfer/test_losses_original.py::test_original_distillation_mse_is_a_mean",
    ),
    "7.1 xent": guarded(
        "only the teacher was divided by the temperature",
        "easytransfer/test_losses_original.py::test_original_cross_entropy_of_teacher_and_student_use_one_temperature",
    ),
    "7.1 kld": guarded(
        "the divergence had misplaced parentheses",
        "easytransfer/test_losses_original.py::"
        "test_original_divergence_is_zero_for_equal_logits_and_positive_otherwise",
    ),
    "7.1 stages": later("teacher logits were passed as text columns between three scripts", DISTILLATION),
    "7.8": later("the best checkpoint of several tasks was found by a loop in a script", DISTILLATION),
    "8.1 masking": guarded(
        "masking drew from a generator of the process, so it never repeated",
        "easytransfer/test_compat_text.py::test_pretraining_hides_pieces",
        "appzoo/test_preprocess.py::test_pretraining_tables",
    ),
    "8.1 copies": later("every text was masked in 40 stored copies", PRETRAINING),
    "8.3 extractor": guarded(
        "the picture grid of the code and of the text differed",
        "appzoo/test_region_pictures.py::test_cells_are_means_of_the_deepest_map",
        "appzoo/test_region_pictures.py::test_a_table_and_a_request_give_the_same_and_each_picture_is_computed_once",
    ),
    "8.3 rows": guarded(
        "a row of text carried 131072 numbers",
        "easytransfer/test_regions.py::test_records_are_found_by_the_id_of_the_image",
        "appzoo/test_region_pictures.py::test_a_table_and_a_request_give_the_same_and_each_picture_is_computed_once",
    ),
    "8.3 patches": guarded(
        "the divergence of patches clipped probabilities, which lost the gradient",
        "easytransfer/test_losses_original.py::test_patch_divergence_of_distant_features_is_finite",
    ),
    "9.1 variables": later("NCCL settings of the user were overwritten", DISTRIBUTION),
    "9.1 strategies": later("accumulation and most strategies needed a closed build", DISTRIBUTION),
    "10 threads": guarded(
        "stages in threads mixed up the rows and hid the first error",
        "easytransfer/test_compat_pipeline.py::test_items_keep_their_order_over_many_threads",
        "easytransfer/test_compat_pipeline.py::test_original_failure_stops_all_stages_and_is_raised",
        "easytransfer/test_compat_pipeline.py::test_original_index_error_in_a_source_is_not_the_end",
        "integration/test_original_user_defined.py::test_distributed_preprocess_writes_the_same_table",
    ),
    "10 files": guarded(
        "only tables of a service were divided among workers",
        "appzoo/test_preprocess.py::test_three_workers_write_what_one_writes",
    ),
    "11 zoo": guarded(
        "an export could not be used without the ModelZoo",
        "integration/test_original_failures.py::test_original_regression_broke_when_the_best_checkpoint_was_exported",
        "easytransfer/test_export.py::test_text_export_needs_only_operator_libraries",
    ),
}

REGISTER = {**BAD_INPUT, **APPLICATIONS, **REMARKS}
SUBJECTS = {defect.later for defect in REGISTER.values() if defect.later}
TESTS = Path(__file__).parent


@functools.cache
def names_of(file: str) -> set[str]:
    """Names of the test functions of a file, read from its source; a skipped one would not guard anything."""
    path = TESTS / file
    if not path.is_file():
        return set()
    functions = [
        node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.FunctionDef)
    ]
    always_off = ("pytest.mark.skip(", "pytest.mark.skip", "pytest.mark.xfail")
    return {
        node.name
        for node in functions
        if node.name.startswith("test_")
        and not any(
            ast.unparse(mark).startswith(f"{off}(") or ast.unparse(mark) == off
            for mark in node.decorator_list
            for off in always_off
        )
    }


@pytest.mark.parametrize("key", REGISTER)
def test_every_defect_is_guarded_or_belongs_to_a_later_subject(key):
    defect = REGISTER[key]
    assert bool(defect.tests) != bool(defect.later), "tests, or the subject that will bring them"
    missing = [name for name in defect.tests if name.partition("::")[2] not in names_of(name.partition("::")[0])]
    assert missing == [], f"{defect.what}: no such test"


def test_no_row_of_the_specification_is_left_out():
    assert list(BAD_INPUT) == [f"12.{row}" for row in range(1, 28)]
    assert {key.split()[0] for key in APPLICATIONS if key.startswith("6.2")} == {f"6.2.{n}" for n in range(1, 9)}
    assert len(REGISTER) == len(BAD_INPUT) + len(APPLICATIONS) + len(REMARKS), "every key once"


def test_every_test_named_after_a_defect_is_in_the_register():
    """Tests of the original's command lines and functions are named after those, not after a defect."""
    named = {test.partition("::")[2] for defect in REGISTER.values() for test in defect.tests}
    not_defects = {
        *("test_original_json_file", "test_original_run_folder_is_understood", "test_original_softmax_cross_entropy"),
        *("test_original_mean_square_error", "test_original_multi_label_loss_reads_padded_ids"),
        *("test_original_pretraining_losses", "test_original_name_is_the_mean_over_all_pairs_with_a_zero_diagonal"),
        *("test_original_sequence_labeling_loss_divided_by_padding_too",),
    }
    found = {
        name
        for path in TESTS.rglob("test_*.py")
        for name in names_of(str(path.relative_to(TESTS)))
        if name.startswith("test_original_") and "_command" not in name
    }
    assert found - named - not_defects == set()


def test_a_name_that_does_not_exist_is_noticed():
    assert "test_no_such_thing" not in names_of("test_original_defects.py") and names_of("none.py") == set()
    assert "test_scripts_of_the_original_run" in names_of("integration/test_original_user_defined.py")
    assert len(SUBJECTS) == 4
