"""Asks hosts whether they have files, all at the same time, without downloading anything."""

import threading
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from ssd.fetch import unavailable_reason

TIMEOUT_S = 3.0
"""Timeout of a connection; a host that drops packets is as good as none."""


def probe(sizes: Mapping[str, int | None]) -> dict[str, str]:
    """Ask for each URL why it cannot be fetched, in a few words; "" if it can be.

    Args:
        sizes: URL -> bytes of the file; None if its size is not known.
    """
    answers = dict.fromkeys(sizes, f"no answer in {TIMEOUT_S:g} s")

    def probe_one(url: str, num_bytes: int | None) -> None:
        answers[url] = unavailable_reason(url, num_bytes, TIMEOUT_S)

    # Daemons: a name server that does not answer keeps a thread much longer than the timeout.
    threads = [threading.Thread(target=probe_one, args=item, daemon=True) for item in sizes.items()]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + TIMEOUT_S + 1
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0))
    return dict(answers)


def list_reasons(reasons: Mapping[str, str]) -> str:
    """URL -> reason as a phrase that names the hosts: "HOST, HOST: REASON; HOST: REASON"."""
    hosts: dict[str, list[str]] = {}
    for url, reason in reasons.items():
        hosts.setdefault(reason, []).append(urlsplit(url).hostname or url)
    return "; ".join(f"{', '.join(dict.fromkeys(names))}: {reason}" for reason, names in hosts.items())
