"""Configuration of text comprehension."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import model_validator

from appzoo.settings import EncoderSettings, LoraSettings
from easytransfer.config.job import JobConfig
from easytransfer.config.schema import setting


class BertComprehensionSettings(EncoderSettings, LoraSettings):
    """Encoder, windows and answer search."""

    dropout_rate: float = setting(0.0, "Dropout before the head.", modes="T", ge=0, lt=1)
    num_labels: int = setting(2, "Scores per token, start and end: always 2.", modes="T", ge=2, le=2)
    max_query_length: int = setting(64, "Tokens a question may have; the rest is cut.", modes="TEPS", ge=1)
    doc_stride: int = setting(128, "Tokens from the start of one window to the start of the next.", modes="TEPS", ge=1)
    n_best_size: int = setting(20, "Answers kept per question.", modes="TEPX", ge=1)
    max_answer_length: int = setting(30, "Tokens an answer may have.", modes="TEPX", ge=1)
    null_score_threshold: float | None = setting(
        None,
        "Predict no answer where its score exceeds the best answer's by more than this; by default always answer.",
        modes="TEPX",
    )
    answer_metric: Literal["auto", "squad1", "squad2", "cmrc"] = setting(
        "auto",
        "Rule of exact_match and f1; cmrc counts Chinese characters, auto is squad2 for tables with unanswerable "
        "questions, otherwise squad1.",
        modes="TE",
    )


class HaeComprehensionSettings(BertComprehensionSettings):
    """Encoder with history answer embedding, windows and answer search."""

    max_considered_history_turns: int = setting(
        11, "Earlier answers of the conversation that are marked, the latest ones.", modes="TEPS", ge=1
    )


class BertComprehensionConfig(JobConfig):
    """Answer a question with a piece of a text."""

    fixed_columns = {".json": {"first_sequence": "context", "second_sequence": "question", "label_name": "answers"}}
    held_out_by_label = False
    model: BertComprehensionSettings = BertComprehensionSettings()

    @model_validator(mode="before")
    @classmethod
    def _question_id_is_an_output(cls, values: Any) -> Any:
        """Takes `qas_id` in appendCols, as in the original's scripts, for the output column it is."""
        data = values.get("data") if isinstance(values, dict) else None
        if not isinstance(data, dict) or "qas_id" in str(data.get("input_schema") or ""):
            return values
        append = [name.strip() for name in str(data.get("append_cols") or "").split(",")]
        if "qas_id" not in append or not data.get("output_schema"):
            return values
        rest = ",".join(name for name in append if name != "qas_id")
        changed = {"append_cols": rest or None, "output_schema": f"{data['output_schema']},qas_id"}
        return {**values, "data": {**data, **changed}}


class HaeComprehensionConfig(BertComprehensionConfig):
    """Answer the questions of a conversation with pieces of a text."""

    model: HaeComprehensionSettings = HaeComprehensionSettings()


VARIANTS = {"bert": BertComprehensionConfig, "bert_hae": HaeComprehensionConfig}
