"""Tests with real servers, which take minutes: `make remote-test`, `make team-test`, `make browser-test`.

Where a server is missing they fail.
"""
