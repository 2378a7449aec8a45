"""Package metadata of swin_jax."""

import pathlib

import setuptools

here = pathlib.Path(__file__).parent

setuptools.setup(
    name="swin_jax",
    version="0.1.0",
    description="Hierarchical vision transformers and language-image models in JAX",
    long_description=(here / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=setuptools.find_packages(include=["swin_jax", "swin_jax.*"]),
    # With it, `pip install -e` puts this folder on Python's path and installs no hook, which Python
    # asks last: beside a clone called swin_jax it would take the clone for an empty package.
    package_dir={"": "."},
    package_data={"swin_jax": ["py.typed"]},
    python_requires=">=3.11",
    install_requires=[
        "jax>=0.10",
        "flax>=0.12.6",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.11.40",
        "tensorflow-datasets>=4.9.9",
        "grain>=0.2.16",
        "ml_collections>=1.1.0",
        "cloudpickle>=3.0",
        "chex>=0.1.90",
        "etils[epath]>=1.12",
        "flatbuffers>=23.5",
        "numpy>=2.0",
        "absl-py",
        "ftfy>=6.1",
        # It carries CLIP's vocabulary; there are no later wheels.
        "instant-clip-tokenizer>=0.1.1; python_version < '3.13'",
        "matplotlib>=3.8",
        # Earlier ones take minutes for comments in a GIF, and gigabytes for tags of a TIFF.
        "pillow>=13",
        "scikit-learn>=1.4",
        "scipy>=1.11",
        "tensorboardX>=2.6",
        "threadpoolctl>=3.1",
        "tqdm>=4.66",
    ],
    extras_require={
        "test": [
            "av>=14",
            "cykooz-resizer>=4,<5",
            "jax[tpu]>=0.10; sys_platform == 'linux'",  # the compiler of the plans
            "mypy>=2.0,<3",  # what it finds, and how it says so, is compared
            "opencv-python-headless>=4.8",
            "pytest>=8",
            "pytest-xdist>=3.5",
            "pytest-timeout>=2.3",
            "python_avatars==1.4.1",
            "resvg-py>=0.5",
            "ruff>=0.6",
            "safetensors>=0.4",
            "setuptools>=70.1",  # builds the wheel that test_packaging looks into
            "simplejpeg>=1.9",
        ],
        "docs": ["mkdocs>=1.6,<2"],
        "tpu": ["jax[tpu]>=0.10"],
        "cuda": ["jax[cuda12]>=0.10"],
        "loader": ["cykooz-resizer>=4,<5", "opencv-python-headless>=4.8", "simplejpeg>=1.9"],
        "peers": [
            "open_clip_torch>=2.24",
            "timm>=1.0",
            "torch>=2.4",
            "torchvision>=0.19",
            "transformers>=4.40",
        ],
        "gs": ["gcsfs>=2025.5", "google-cloud-storage>=2.14"],
        "wandb": ["wandb>=0.18"],
        "avatars": ["python_avatars==1.4.1", "resvg-py>=0.5"],
        "emoji": ["resvg-py>=0.5"],
        "notebooks": ["ipykernel>=6.29", "jupyterlab>=4", "nbclient>=0.10"],
        "parquet": ["pyarrow>=14.0.1"],
        "video": ["av>=14", "opencv-python-headless>=4.8"],
    },
    entry_points={"console_scripts": ["swin_jax = swin_jax.launch:main"]},
)
