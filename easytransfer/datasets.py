"""Readers and writers, by the name that scripts import: `easytransfer.compat.datasets`."""

from easytransfer.compat.datasets import (
    BatchWriter as BatchWriter,
)
from easytransfer.compat.datasets import (
    BundleCSVReader as BundleCSVReader,
)
from easytransfer.compat.datasets import (
    BundleTFRecordReader as BundleTFRecordReader,
)
from easytransfer.compat.datasets import (
    CSVReader as CSVReader,
)
from easytransfer.compat.datasets import (
    CSVWriter as CSVWriter,
)
from easytransfer.compat.datasets import (
    JsonlReader as JsonlReader,
)
from easytransfer.compat.datasets import (
    MemoryReader as MemoryReader,
)
from easytransfer.compat.datasets import (
    OdpsTableReader as OdpsTableReader,
)
from easytransfer.compat.datasets import (
    OdpsTableWriter as OdpsTableWriter,
)
from easytransfer.compat.datasets import (
    ParquetReader as ParquetReader,
)
from easytransfer.compat.datasets import (
    TableReader as TableReader,
)
from easytransfer.compat.datasets import (
    TFRecordReader as TFRecordReader,
)
from easytransfer.compat.datasets import (
    TFRecordWriter as TFRecordWriter,
)
