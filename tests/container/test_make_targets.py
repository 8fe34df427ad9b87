"""`make image` and its like, as `make -n` prints them."""

import os
import subprocess

from default_params import REPOSITORY


def make(*arguments: str) -> str:
    """What `make ARGUMENTS` prints; not as a part of the make that may have started this test."""
    plain = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    command = ["make", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=plain, capture_output=True, text=True, check=True
    ).stdout


def printed(*arguments: str) -> str:
    """What make would run."""
    return make("--dry-run", *arguments)


def test_the_image_is_built_with_the_commit_and_the_variant_by_either_engine() -> None:
    command = printed("image", "ENGINE=docker", "TORCH=cpu")
    assert command.startswith("docker build ") and "--format" not in command
    assert "--build-arg TORCH=cpu" in command and "REVISION=$(git describe --always --abbrev=40" in command
    assert "--format docker" in printed("image", "ENGINE=podman"), "or podman drops the health check"


def test_each_stage_gets_a_container_as_the_caller_and_no_network_but_download() -> None:
    script = printed("image-repro", "ENGINE=docker", "CALLER=7:8", "RUN_FLAGS=--gpus all")
    run = f'docker run --rm --user 7:8  --shm-size 2g --volume "{REPOSITORY}:/app" --gpus all'
    assert script.count(run) == 2
    assert 'test $stage = download; then network=; else network="--network none"' in script
    assert f"{run} $terminal $network ssd dvc repro --single-item $stage" in script


def test_the_test_of_the_image_takes_debian_s_packages_unless_told_otherwise() -> None:
    assert "IMAGE_TEST=1 ENGINE= BASE= " in printed("image-test")
    assert "IMAGE_TEST=1 ENGINE=docker BASE=debian:x " in printed(
        "image-test", "ENGINE=docker", "BASE=debian:x"
    )


def test_kubeflow_s_pipelines_are_compiled_with_the_claim_for_checkpoints_if_one_is_named() -> None:
    assert printed("kfp", "CHECKPOINTS=kept").count("--state remote --checkpoints kept ") == 1
    assert "--checkpoints" not in printed("kfp")


def test_help_lists_every_target_that_is_explained() -> None:
    listed = [line.split()[1] for line in make("help").splitlines()]
    makefile = (REPOSITORY / "Makefile").read_text().replace("\\\n", "")
    phony = makefile.split(".PHONY: ")[1].splitlines()[0].split()
    assert sorted(listed) == sorted(phony)
