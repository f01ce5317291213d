"""Generates the stubs from the protos while building; they are not kept under version control."""

import pathlib
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = pathlib.Path(__file__).resolve().parent


def proto_dir() -> pathlib.Path:
    """In a checkout the protos stand at its root; a source distribution carries a copy."""
    for candidate in (HERE / "proto", HERE.parent.parent / "proto"):
        if (candidate / "prism").is_dir():
            return candidate
    raise SystemExit("setup.py: no proto folder found: build from a checkout or from a source distribution")


class BuildPy(build_py):
    def run(self) -> None:
        super().run()
        from grpc_tools import protoc
        import grpc_tools

        source = proto_dir()
        target = HERE / "src" if self.editable_mode else pathlib.Path(self.build_lib)
        target.mkdir(parents=True, exist_ok=True)
        well_known = pathlib.Path(grpc_tools.__file__).parent / "_proto"
        files = sorted(str(path.relative_to(source)) for path in source.rglob("prism/**/*.proto"))
        arguments = ["protoc", f"-I{source}", f"-I{well_known}"]
        arguments += [f"--{kind}_out={target}" for kind in ("python", "pyi", "grpc_python")]
        if protoc.main([*arguments, *files]) != 0:
            raise SystemExit("setup.py: generating the stubs failed")


class Sdist(sdist):
    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        source = proto_dir()
        for path in source.rglob("prism/**/*.proto"):
            target = pathlib.Path(base_dir) / "proto" / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


setup(cmdclass={"build_py": BuildPy, "sdist": Sdist})
