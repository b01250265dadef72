"""The C++ extension `limbeck._infinigram`; everything else is declared in pyproject.toml."""

import os
from glob import glob

from pybind11.setup_helpers import ParallelCompile, Pybind11Extension
from setuptools import setup

FLAGS = ["-O3", "-Wall", "-Wextra", "-fvisibility=hidden", "-pthread"]
SANITIZERS = {
    "": [],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1"],
    "thread": ["-fsanitize=thread", "-g", "-O1"],
}
SOURCES = "src/limbeck/infinigram/csrc"
chosen = SANITIZERS[os.environ.get("LIMBECK_SANITIZE", "")]

ParallelCompile("LIMBECK_COMPILE_JOBS", default=0).install()
setup(
    ext_modules=[
        Pybind11Extension(
            "limbeck._infinigram",
            sorted(glob(f"{SOURCES}/**/*.cpp", recursive=True)),
            depends=sorted(glob(f"{SOURCES}/**/*.hpp", recursive=True)),
            include_dirs=[SOURCES],
            cxx_std=20,
            extra_compile_args=[*FLAGS, *chosen],
            extra_link_args=["-pthread", *chosen],
        )
    ]
)
