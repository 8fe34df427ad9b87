"""An MLflow server from its own lock, as compose.yaml starts it, on PostgreSQL and the object store."""

import os
import sys
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import compose

from tests.on_demand.object_store import KEYS, ObjectStore
from tests.on_demand.postgres import PASSWORD, Postgres
from tests.on_demand.servers import Server, free_port


class MlflowServer:
    """One that can be killed and started again, at the same address with the same stores."""

    def __init__(self, postgres: Postgres, store: ObjectStore, log: Path) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.log = log
        changes = {
            "0.0.0.0": "127.0.0.1",
            "--port=5000": f"--port={self.port}",
            "@postgres:5432": f"@127.0.0.1:{postgres.port}",
        }
        programs = Path(sys.prefix) / "server" / "bin"
        assert (programs / "mlflow").exists(), "the server's environment is missing: use make team-test"
        name, *arguments = compose.command("mlflow", changes)
        self.command = [str(programs / name), *arguments]
        self.environment = {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(log.parent),
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "PGPASSWORD": PASSWORD,
            "MLFLOW_S3_ENDPOINT_URL": store.endpoint,
            **KEYS,
        }
        assert compose.content()["services"]["mlflow"]["environment"].keys() <= self.environment.keys()
        self.start()

    def start(self) -> None:
        """Return when it answers."""
        self.process = Server(self.command, self.environment, self.log, self.healthy)

    def kill(self) -> None:
        """SIGKILL to it and its workers."""
        self.process.kill()

    def healthy(self) -> bool:
        """Whether the health check of compose.yaml passes."""
        try:
            with urlopen(f"{self.uri}/health", timeout=5) as answer:
                return bool(answer.status == 200)
        except (URLError, OSError):
            return False
