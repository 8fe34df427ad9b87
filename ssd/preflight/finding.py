"""Finding: something that the pipeline needs and that is missing, as a value."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ssd.errors import UserError


@dataclass(frozen=True)
class Finding:
    """One line for the user.

    Attributes:
        key: the parameter that asks for what is missing, as "section.name"; "" for none.
        text: what is missing, where, and how to mend it.
        fatal: the pipeline will stop there; otherwise the finding is a warning.
    """

    key: str
    text: str
    fatal: bool = True

    @classmethod
    def from_error(cls, error: UserError, *, fatal: bool = True) -> "Finding":
        """What a function would stop with, as a finding."""
        return cls(error.key, str(error).removeprefix(f"{error.key}: "), fatal)

    def __str__(self) -> str:
        """The line."""
        return f"params.yaml: {self.key}: {self.text}" if self.key else self.text


@contextmanager
def collected(findings: list[Finding], *, fatal: bool = True) -> Iterator[None]:
    """Append the UserError or OSError that ends the block, if one does, to `findings`."""
    try:
        yield
    except UserError as error:
        findings.append(Finding.from_error(error, fatal=fatal))
    except OSError as error:
        findings.append(Finding("", f"{error.filename}: {error.strerror}", fatal=fatal))
