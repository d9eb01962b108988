"""Metrics of `build_eval_metrics`, by the name that scripts import: `easytransfer.compat.evaluators`."""

from easytransfer.compat.evaluators import (
    EvalMetric as EvalMetric,
)
from easytransfer.compat.evaluators import (
    MetricCollector as MetricCollector,
)
from easytransfer.compat.evaluators import (
    classification_eval_metrics as classification_eval_metrics,
)
from easytransfer.compat.evaluators import (
    comprehension_eval_metrics as comprehension_eval_metrics,
)
from easytransfer.compat.evaluators import (
    fetches as fetches,
)
from easytransfer.compat.evaluators import (
    masked_language_model_eval_metrics as masked_language_model_eval_metrics,
)
from easytransfer.compat.evaluators import (
    match_eval_metrics as match_eval_metrics,
)
from easytransfer.compat.evaluators import (
    matthew_corr_metrics as matthew_corr_metrics,
)
from easytransfer.compat.evaluators import (
    mean_eval_metric as mean_eval_metric,
)
from easytransfer.compat.evaluators import (
    multi_label_eval_metrics as multi_label_eval_metrics,
)
from easytransfer.compat.evaluators import (
    next_sentence_prediction_eval_metrics as next_sentence_prediction_eval_metrics,
)
from easytransfer.compat.evaluators import (
    regression_eval_metrics as regression_eval_metrics,
)
from easytransfer.compat.evaluators import (
    sequence_labeling_eval_metrics as sequence_labeling_eval_metrics,
)
from easytransfer.compat.evaluators import (
    teacher_probes_eval_metrics as teacher_probes_eval_metrics,
)
