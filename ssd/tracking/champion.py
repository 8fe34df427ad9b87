"""The registry's alias `champion`: the version of a registered model that a better one has to beat.

A version has it because its interval of the difference lay above zero; its tags say on which data, against
which model, and by how much.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ssd.errors import UserError
from ssd.params import TrackingParams
from ssd.tracking.model_files import asked, model_version

CHAMPION = "champion"
TAG = "champion_"
"""Before the tags of a version about how it became the champion."""


@dataclass(frozen=True)
class Challenge:
    """A version that may become the champion.

    name, version: of the registered model; champion: the version that is it now, None for none yet.
    """

    name: str
    version: str
    champion: str | None

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


def open_challenge(a: str, b: str, settings: TrackingParams, root: Path) -> Challenge:
    """Who may be compared to move the alias: A is the champion of B's registered model.

    As long as there is none, A may be any model: also the first champion has to be better than something.

    Args:
        a, b: as given on the command line.
        settings: the `tracking` section; root: the main workspace, which contains the store.

    Raises:
        UserError: B is no version of a registered model, B is the champion, or A is another model than it.
    """
    if not b.startswith("models:/"):
        raise UserError(f"{b}: only a registered version becomes champion: B is models:/NAME/VERSION")
    with asked(b, settings, root):
        challenger = model_version(b)
    name, version = str(challenger.name), str(challenger.version)
    challenge = Challenge(name, version, champion_of(name, settings, root))
    if challenge.champion is None:
        return challenge
    if challenge.champion == version:
        raise UserError(f"{b}: version {version} of {name} is the champion already")
    wanted = f"models:/{name}@{CHAMPION}"
    if not a.startswith("models:/"):
        raise UserError(f"{a}: only who beats the champion takes its place: A is {wanted}")
    with asked(a, settings, root):
        other = model_version(a)
    if (other.name, str(other.version)) != (name, challenge.champion):
        raise UserError(f"{a}: the champion is version {challenge.champion} of {name}: A is {wanted}")
    return challenge


def champion_of(name: str, settings: TrackingParams, root: Path) -> str | None:
    """The version with the alias; None where no version has it."""
    with asked(name, settings, root) as client:
        version = client.get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else str(version)


def move_champion(
    challenge: Challenge, reasons: Mapping[str, str], settings: TrackingParams, root: Path
) -> None:
    """Give the challenger the alias.

    Args:
        reasons: for the tags of the version, by name.

    Raises:
        UserError: another version has become the champion since the challenge was opened.
    """
    if champion_of(challenge.name, settings, root) != challenge.champion:
        raise UserError(f"{challenge.name}: another version became {CHAMPION} meanwhile; compare again")
    with asked(challenge.uri, settings, root) as client:
        for key, value in reasons.items():
            client.set_model_version_tag(challenge.name, challenge.version, TAG + key, value)
        client.set_registered_model_alias(challenge.name, CHAMPION, challenge.version)
