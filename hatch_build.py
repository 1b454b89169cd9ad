"""Generates the protobuf and gRPC modules of millrace.v1 from proto/ when the package is built.

Generated code is never committed: an install (also an editable one) makes it, and ``make proto`` makes it
anew after a change of the contracts.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # `python hatch_build.py` in an environment without the build backend
    BuildHookInterface = object

ROOT = Path(__file__).resolve().parent


def generate(root: Path = ROOT) -> None:
    """Compile every file of proto/ into modules with type stubs beside the package's own code."""
    from grpc_tools import protoc

    plugins = Path(sys.executable).parent
    includes = Path(protoc.__file__).parent / "_proto"
    sources = sorted(str(path) for path in (root / "proto").rglob("*.proto"))
    arguments = [
        "protoc",
        f"--proto_path={root / 'proto'}",
        f"--proto_path={includes}",
        f"--python_out={root}",
        f"--grpc_python_out={root}",
        f"--mypy_out={root}",
        f"--mypy_grpc_out={root}",
    ]
    for name in ("mypy", "mypy_grpc"):
        plugin = plugins / f"protoc-gen-{name}"
        if plugin.exists():
            arguments.append(f"--plugin=protoc-gen-{name}={plugin}")
    if protoc.main([*arguments, *sources]) != 0:
        raise SystemExit("protoc failed on proto/; its messages are above")
    (root / "millrace" / "v1" / "__init__.py").touch()


class ProtobufBuildHook(BuildHookInterface):  # type: ignore[misc, valid-type, unused-ignore]
    """Runs :func:`generate` before hatchling collects the files of a wheel or an editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        del version, build_data
        generate(Path(self.root))


if __name__ == "__main__":
    generate()
