"""docker or podman in tests, and a base image of Debian's packages where no other one is named."""

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
"""Of a machine that may stand behind a proxy with a certificate of its own."""

PODMAN = """
[containers]
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "{runtime}"
"""
"""Podman for a machine without systemd, with limits that a restricted root can set."""


@dataclass(frozen=True)
class Engine:
    """docker or podman.

    name: the command; environment: its variables; build_flags: more options of `build`.
    """

    name: str
    environment: Mapping[str, str]
    build_flags: Sequence[str] = ()

    def call(self, *arguments: str) -> bytes:
        """What `docker ARGUMENTS` writes to its standard output; it must succeed."""
        done = subprocess.run([self.name, *arguments], env=self.environment, stdout=subprocess.PIPE)
        assert done.returncode == 0, f"{self.name} {' '.join(arguments)} ended with {done.returncode}"
        return done.stdout

    def fails(self, *arguments: str) -> bool:
        """Whether `docker ARGUMENTS` ends with an error."""
        command = [self.name, *arguments]
        return subprocess.run(command, env=self.environment, stdout=subprocess.DEVNULL).returncode != 0

    def inspect(self, image: str) -> Any:
        """What the engine knows of an image."""
        return json.loads(self.call("image", "inspect", image))[0]


def choose_engine(name: str, folder: Path) -> Engine:
    """The engine of that name as it is set up; without a name, Debian's podman with settings in `folder`."""
    if name:
        return Engine(name, os.environ)
    runtime = "crun" if shutil.which("runc") is None else "runc"
    settings = folder / "containers.conf"
    settings.write_text(PODMAN.format(runtime=runtime))
    environment = {**os.environ, "CONTAINERS_CONF": str(settings)}
    return Engine("podman", environment, ("--isolation", "chroot"))


def debian_base(engine: Engine, folder: Path) -> str:
    """The name of an image of Debian with its Python, made by mmdebstrap if it is not there yet."""
    name = "localhost/ssd-test-base"
    if not engine.fails("image", "inspect", name):
        return name  # another one would have to be built upon from the start
    archive, changes = folder / "base.tar", []
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"]
    if CERTIFICATES.exists():
        command.append(f"--customize-hook=copy-in {CERTIFICATES} {CERTIFICATES.parent}")
        for variable in ("SSL_CERT_FILE", "PIP_CERT"):
            changes += ["--change", f"ENV {variable}={CERTIFICATES}"]
    subprocess.run([*command, "trixie", str(archive)], check=True)
    engine.call("import", *changes, str(archive), name)
    archive.unlink()
    return name
