"""Packages `configs/`, which stands at the top level, inside the wheel as `prompt_tuning/configs`.

Everything else about the package is in `pyproject.toml`.
"""

from setuptools import find_namespace_packages, setup

setup(
    packages=[*find_namespace_packages(include=["prompt_tuning*"]), "prompt_tuning.configs"],
    package_dir={"prompt_tuning.configs": "configs"},
)
