"""Pre-trained models, by the name that scripts import: `easytransfer.compat.model_zoo`."""

from easytransfer.compat.model_zoo import (
    PretrainedModel as PretrainedModel,
)
from easytransfer.compat.model_zoo import (
    get_pretrained_model as get_pretrained_model,
)
from easytransfer.compat.model_zoo import (
    loading as loading,
)
from easytransfer.compat.model_zoo import (
    model_root as model_root,
)
from easytransfer.compat.model_zoo import (
    set_model_root as set_model_root,
)
