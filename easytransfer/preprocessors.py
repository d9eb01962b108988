"""Preprocessors, by the name that scripts import: `easytransfer.compat.preprocessors`."""

from easytransfer.compat.preprocessors import (
    PairedPreprocessor as PairedPreprocessor,
)
from easytransfer.compat.preprocessors import (
    PretrainPreprocessor as PretrainPreprocessor,
)
from easytransfer.compat.preprocessors import (
    RawRows as RawRows,
)
from easytransfer.compat.preprocessors import (
    Settings as Settings,
)
from easytransfer.compat.preprocessors import (
    TextPreprocessor as TextPreprocessor,
)
from easytransfer.compat.preprocessors import (
    as_tensor as as_tensor,
)
from easytransfer.compat.preprocessors import (
    column_values as column_values,
)
from easytransfer.compat.preprocessors import (
    fixed_arrays as fixed_arrays,
)
from easytransfer.compat.preprocessors import (
    get_preprocessor as get_preprocessor,
)
