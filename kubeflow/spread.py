"""Images that several steps decode at once for preprocess: which shards, and how each step hands on its file.

The step download says which shards there are, a loop has a step `pack` for each, and preprocess comes after
all of them. On a volume it finds their files there; with a remote it gets the text of each one's .dvc file.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ruamel.yaml import YAML

NOTHING = "none"
"""What the loop runs over if there is nothing to pack, as kfp collects no outputs of an empty loop; output of
a step pack whose file need not be handed on."""

PACKED = Path("data/packed")

Command = Callable[..., None]


def shards_to_pack(project: Path, *, has_remote: bool) -> list[str]:
    """Numbers of the shards; NOTHING if there is only one, or if the remote has what preprocess writes."""
    num_shards = YAML(typ="safe", pure=True).load(project / "params.yaml")["preprocess"]["shards"]
    if num_shards == 1 or (has_remote and is_known(project, "preprocess")):
        return [NOTHING]
    return [str(number) for number in range(num_shards)]


def is_known(project: Path, stage: str) -> bool:
    """Whether DVC's run cache has a result of a stage, all of whose inputs are here.

    No command of DVC says so without fetching the result: `dvc repro --dry` and `dvc status` go by dvc.lock.
    """
    from dvc.repo import Repo  # takes a second, and only one step needs it

    with Repo(str(project)) as repo:
        found = repo.stage.load_one(str(project / "dvc.yaml"), stage)
        with repo.lock:
            found.save_deps()
        return repo.stage_cache._load(found) is not None


def push_packed(project: Path, dvc: Command) -> str:
    """Push the one packed file of a project to its remote; the text of its .dvc file."""
    (file,) = (project / PACKED).glob("*.safetensors")
    name = (PACKED / file.name).as_posix()
    dvc("add", name)
    dvc("push", f"{name}.dvc")
    return (project / f"{name}.dvc").read_text(encoding="utf-8")


def pull_packed(project: Path, texts: Sequence[str], dvc: Command) -> None:
    """Get the packed files of other steps from the remote, by the texts of their .dvc files, or NOTHING."""
    texts = [text for text in texts if text != NOTHING]
    if not texts:
        return
    names = [(PACKED / f"{number:05d}.dvc").as_posix() for number in range(len(texts))]
    (project / PACKED).mkdir(parents=True)
    for name, text in zip(names, texts, strict=True):
        (project / name).write_text(text, encoding="utf-8")
    dvc("pull", *names)
