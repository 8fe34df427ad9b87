"""PostgreSQL from Debian's package, with a password, on a free port, by a user who is not root."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.on_demand.servers import Server, free_port

PASSWORD = "a-password-of-the-test"


@dataclass(frozen=True)
class Postgres:
    """A running one, with the user and the database that compose.yaml names."""

    programs: Path
    port: int

    def query(self, text: str) -> str:
        """What psql prints, without headings."""
        return run(self.programs / "psql", *self.options, "--tuples-only", "--no-align", "--command", text)

    @property
    def options(self) -> list[str]:
        return ["--host=127.0.0.1", f"--port={self.port}", "--username=mlflow", "--dbname=mlflow"]

    def ready(self) -> bool:
        command = [self.programs / "pg_isready", "--host=127.0.0.1", f"--port={self.port}", "--quiet"]
        return subprocess.run(command, check=False).returncode == 0


@contextmanager
def running_postgres(log: Path) -> Iterator[Postgres]:
    """A running one with an empty database; its data is deleted."""
    programs = find_programs()
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    folder = Path(tempfile.mkdtemp(prefix="postgres"))  # pytest's folders are closed to others
    try:
        if user:
            shutil.chown(folder, user, user)
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        data = folder / "data"
        run(
            programs / "initdb",
            f"--pgdata={data}",
            "--username=mlflow",
            "--auth=scram-sha-256",
            f"--pwfile={password}",
            "--encoding=UTF8",
            "--no-sync",
            user=user,
        )
        database = Postgres(programs, free_port())
        command = [f"{programs}/postgres", "-D", str(data), "-h", "127.0.0.1", "-k", str(folder)]
        server = Server([*command, "-p", str(database.port)], dict(os.environ), log, database.ready, user)
        try:
            run(programs / "createdb", *database.options[:-1], "mlflow")
            yield database
        finally:
            server.kill()
    finally:
        shutil.rmtree(folder)


def find_programs() -> Path:
    """The folder of the programs of the newest version; Debian puts only some of them on the PATH."""
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    assert versions, "PostgreSQL is missing: apt-get install postgresql"
    return versions[-1]


def run(program: Path, *arguments: str, user: str | None = None) -> str:
    """Run a program of PostgreSQL to its end, which is a good one; what it printed."""
    done = subprocess.run(
        [program, *arguments],
        env=os.environ | {"PGPASSWORD": PASSWORD, "PGCONNECT_TIMEOUT": "60"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
        user=user,
        group=user,
        extra_groups=[] if user else None,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
