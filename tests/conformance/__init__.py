"""CrewAI's own tests, run on stock CrewAI and with ``fastcrew_async.install()`` active: the results must be the same.

    python -m tests.conformance            both runs, then the comparison
    python -m tests.conformance --part     the same for the files that run crews and agents most
    python -m tests.conformance --reuse    the last stock run, and a new one with install() active
    python -m tests.conformance -k memory  only the tests that match, as pytest's -k

What differs must be listed, with its reason, in ``accepted.toml``; an entry there that no longer differs is an error.
"""
