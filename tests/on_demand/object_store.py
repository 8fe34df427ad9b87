"""SeaweedFS, as compose.yaml starts it, on free ports."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import compose
from botocore.exceptions import BotoCoreError, ClientError
from dvc_project import environment

from tests.on_demand.servers import Server, free_port

KEYS = {"AWS_ACCESS_KEY_ID": "team", "AWS_SECRET_ACCESS_KEY": "a-secret-of-the-test"}


@dataclass(frozen=True)
class ObjectStore:
    """The address of a running one, and a client."""

    port: int
    client: Any

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def sizes(self, bucket: str) -> dict[str, int]:
        """Bytes of each object of a bucket, by key."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}

    def read(self, bucket: str, key: str) -> bytes:
        """The content of an object."""
        content: bytes = self.client.get_object(Bucket=bucket, Key=key)["Body"].read()
        return content


@contextmanager
def running_store(folder: Path) -> Iterator[ObjectStore]:
    """A running one that keeps its data in `folder`."""
    data = folder / "objects"
    data.mkdir()
    weed = shutil.which("weed", path=str(Path(sys.executable).parent))
    assert weed, "SeaweedFS is missing: start this with make remote-test or make team-test"
    ports = {name: free_port() for name in ("s3", "master", "volume", "filer", "admin")}
    changes = {
        "-dir=/data": f"-dir={data}",
        "-ip=store": "-ip=localhost",
        "0.0.0.0": "127.0.0.1",
        "-s3.port=8333": f"-s3.port={ports['s3']}",
    }
    others = [f"-{name}.port={ports[name]}" for name in ("master", "volume", "filer", "admin")]
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.1:{ports['s3']}",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )

    def has_buckets() -> bool:
        try:
            found = {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}
        except (BotoCoreError, ClientError):
            return False
        return found >= {"mlflow", "dvc"}

    command = [weed, *compose.command("store", changes), *others]
    server = Server(command, environment() | KEYS, folder / "store.log", has_buckets)
    try:
        yield ObjectStore(ports["s3"], client)
    finally:
        server.kill()
