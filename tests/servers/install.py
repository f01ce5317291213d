"""The servers that no distribution has: built by Go or fetched from Maven Central, in a pinned version, once per user.

They are kept in $PRISM_CACHE, by default ~/.cache/prism.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

from process import ServerError


def cache() -> pathlib.Path:
    base = os.environ.get("PRISM_CACHE") or pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "prism"
    return pathlib.Path(base) / "servers"


@dataclasses.dataclass(frozen=True)
class GoProgram:
    name: str
    package: str
    version: str
    built_as: str

    @property
    def path(self) -> pathlib.Path:
        return cache() / f"{self.name}-{self.version}" / self.name

    @property
    def present(self) -> bool:
        return self.path.exists()

    def install(self) -> None:
        packaged = sorted(map(str, pathlib.Path("/usr/lib").glob("go-1.2[1-9]/bin/go")))
        go = shutil.which("go") or next(filter(shutil.which, ["/usr/local/go/bin/go", *reversed(packaged)]), None)
        if go is None:
            raise ServerError(f"{self.name} {self.version} is built with Go, which is not installed")
        with tempfile.TemporaryDirectory(dir=_made(cache())) as draft:
            settings = {"GOBIN": draft, "GOFLAGS": "-buildvcs=false", "CGO_ENABLED": "0"}
            settings["GOTOOLCHAIN"] = os.environ.get("GOTOOLCHAIN", "auto")  # the distribution's Go may be too old for the program
            _run([go, "install", f"{self.package}@{self.version}"], settings)
            _made(self.path.parent)
            (pathlib.Path(draft) / self.built_as).rename(self.path)


@dataclasses.dataclass(frozen=True)
class MavenJars:
    """A jar with all that it needs, as one folder for the class path."""

    name: str
    version: str
    dependencies: tuple[tuple[str, str, str], ...]  # group, artifact, version
    excluded: tuple[tuple[str, str], ...] = ()

    @property
    def path(self) -> pathlib.Path:
        return cache() / f"{self.name}-{self.version}"

    @property
    def present(self) -> bool:
        return (self.path / "complete").exists()

    def install(self) -> None:
        if not (maven := shutil.which("mvn")):
            raise ServerError(f"{self.name} {self.version} is fetched with Maven (mvn), which is not installed")
        exclusions = "".join(f"<exclusion><groupId>{g}</groupId><artifactId>{a}</artifactId></exclusion>" for g, a in self.excluded)
        wanted = "".join(
            f"<dependency><groupId>{g}</groupId><artifactId>{a}</artifactId><version>{v}</version><exclusions>{exclusions}</exclusions></dependency>"
            for g, a, v in self.dependencies
        )
        with tempfile.TemporaryDirectory(dir=_made(cache())) as draft:
            pom = pathlib.Path(draft) / "pom.xml"
            pom.write_text(
                "<project><modelVersion>4.0.0</modelVersion><groupId>prism</groupId><artifactId>servers</artifactId>"
                f"<version>1</version><dependencies>{wanted}</dependencies></project>"
            )
            jars = pathlib.Path(draft) / "jars"
            _run([maven, "-q", "-B", "-f", str(pom), "dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={jars}"])
            (jars / "complete").touch()
            shutil.rmtree(self.path, ignore_errors=True)
            jars.rename(self.path)


Program = GoProgram | MavenJars

NATS = GoProgram("nats-server", "github.com/nats-io/nats-server/v2", "v2.15.2", "nats-server")
TOXIPROXY = GoProgram("toxiproxy-server", "github.com/Shopify/toxiproxy/v2/cmd/server", "v2.12.0", "server")
VERSITYGW = GoProgram("versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0", "versitygw")
MINIO = GoProgram("minio", "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c", "minio")
KAFKA = MavenJars(
    "kafka",
    "4.4.0",
    (("org.apache.kafka", "kafka_2.13", "4.4.0"), ("org.apache.logging.log4j", "log4j-slf4j-impl", "2.25.5")),
    (("org.apache.kafka", "kafka-tools-api"),),  # named by the pom, never published
)


def install(program: Program) -> None:
    """Does nothing where it is."""
    if program.present:
        return
    with open(_made(cache()) / f"{program.name}.lock", "w") as lock:  # two checkouts may want it at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.present:
            program.install()


def debian(program: str) -> str | None:
    """A program of the distribution, also where it is not on the PATH."""
    if found := shutil.which(program):
        return found
    found_in = sorted(pathlib.Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda p: int(re.sub(r"\D", "", p.parts[4]) or 0))
    return str(found_in[-1]) if found_in else None


def _made(folder: pathlib.Path) -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(command: list[str], settings: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, env=os.environ | (settings or {}), stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise ServerError(f"{' '.join(command)} failed:\n" + "\n".join((done.stdout + done.stderr).splitlines()[-25:]))
