"""The Dockerfile as it is written: two stages, from the lock, a plain user, no secret."""

import re
import subprocess
import tomllib

from default_params import REPOSITORY

TEXT = (REPOSITORY / "Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    """(instruction, arguments) in order, with continued lines joined and without comments."""
    lines = [line for line in TEXT.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    split = (line.split(maxsplit=1) for line in joined.splitlines() if line.strip())
    return [(name, re.sub(r"\s+", " ", rest)) for name, rest in split]


def arguments(name: str) -> list[str]:
    return [rest for found, rest in instructions() if found == name]


def test_the_second_stage_takes_the_environment_from_the_first_and_both_stand_on_one_base() -> None:
    assert arguments("FROM") == ["${BASE} AS build", "${BASE}"]
    assert "--from=build /opt/venv /opt/venv" in arguments("COPY")


def test_its_syntax_is_what_docker_podman_and_buildah_have_in_common() -> None:
    plain = {"ARG", "FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "HEALTHCHECK", "LABEL", "CMD"}
    assert {name for name, _ in instructions()} == plain
    assert "<<" not in TEXT and "--mount" not in TEXT and "--link" not in TEXT and "# syntax" not in TEXT


def test_every_argument_is_explained_at_the_top() -> None:
    names = {argument.split("=")[0] for argument in arguments("ARG")}
    head = TEXT.split("\nARG ")[0]
    assert names == set(re.findall(r"^# ([A-Z]+): ", head, re.MULTILINE)) == {"BASE", "TORCH", "REVISION"}


def test_all_is_installed_by_the_hashes_of_the_lock_but_pytorch_s_own_cpu_wheels() -> None:
    (install,) = (run for run in arguments("RUN") if "uv pip install" in run)
    commands = re.findall(r"uv pip install (.*?)(?: ;;| && )", install)
    assert [("--require-hashes" in command) for command in commands] == [True, True, False]
    assert "--torch-backend cpu" in commands[2] and "torch(vision)?==" in commands[2]


def test_without_cuda_the_lock_loses_torch_torchvision_triton_and_the_cuda_libraries() -> None:
    (program,) = re.findall(r"awk '(.*)'", TEXT)
    lock = (REPOSITORY / "requirements.txt").read_text()
    done = subprocess.run(["awk", program], input=lock, capture_output=True, text=True, check=True).stdout

    def names(text: str) -> set[str]:
        return set(re.findall(r"^([a-z0-9-]+)==", text, re.MULTILINE))

    gone = names(lock) - names(done)
    assert {"torch", "torchvision", "triton"} <= gone
    assert all(name.startswith(("nvidia-", "cuda-")) for name in gone - {"torch", "torchvision", "triton"})
    assert {"nvidia-ml-py", "torchmetrics", "numpy"} <= names(done)
    assert done.count("--hash") == sum(block.count("--hash") for block in blocks(lock, names(done)))


def blocks(lock: str, names: set[str]) -> list[str]:
    """The requirements of these names, each with its hashes."""
    return [block for block in re.split(r"\n(?=[a-z])", lock) if block.split("==")[0] in names]


def test_what_only_develops_the_project_is_taken_out_again() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    tools = {re.split(r"[><= ]", requirement)[0] for requirement in project["dev"]}
    (taken,) = re.findall(r"uv pip uninstall ([a-z -]+?) &&", " ".join(arguments("RUN")))
    # timm is for `model.backbone: timm/NAME`, others need httpx2 and pyyaml, editables and hatchling are tiny
    assert set(taken.split()) == tools - {"timm", "httpx2", "pyyaml", "editables", "hatchling"}


def test_it_runs_as_a_plain_user_given_by_number() -> None:
    """Kubernetes' runAsNonRoot reads no names."""
    assert arguments("USER") == ["1000:0"]


def test_it_names_no_secret() -> None:
    told = " ".join(rest for name, rest in instructions() if name in ("ARG", "ENV", "RUN", "LABEL")).lower()
    assert not re.search(r"password|token|secret|api_?key|credential", told)


def test_its_labels_name_the_title_and_the_commit() -> None:
    (labels,) = arguments("LABEL")
    assert 'org.opencontainers.image.title="ssd-pipeline"' in labels
    assert 'org.opencontainers.image.revision="${REVISION}"' in labels
    last = [name for name, _ in instructions()].index("LABEL")
    assert all(name in ("LABEL", "CMD") for name, _ in instructions()[last:]), (
        "a new commit builds no layer again"
    )


def test_the_health_check_computes_the_priors_of_ssd300() -> None:
    (check,) = arguments("HEALTHCHECK")
    (code,) = re.findall(r'"-c", "(.*)"\]', check)
    exec(code, {})


def test_telemetry_is_off() -> None:
    assert "MLFLOW_DISABLE_TELEMETRY=true" in " ".join(arguments("ENV"))
