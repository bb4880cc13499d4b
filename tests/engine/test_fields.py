from __future__ import annotations

import copy
import sys
import threading

from fastcrew_async.engine.fields import private, shallow_copy
from tests import crews


def test_it_is_what_copy_gives() -> None:
    for original in (crews.crew(), crews.agent(), crews.task(crews.agent())):
        ours, theirs = shallow_copy(original), copy.copy(original)
        assert type(ours) is type(theirs)
        for name in ("__dict__", "__pydantic_extra__", "__pydantic_fields_set__", "__pydantic_private__"):
            found = getattr(ours, name)
            assert found == getattr(theirs, name)
            assert found is None or found is not getattr(original, name)


def test_another_thread_may_set_what_was_not_set() -> None:
    original = crews.crew()
    done = threading.Event()

    def set_and_forget() -> None:
        while not done.is_set():
            private(original)["_execution_span"] = None
            del private(original)["_execution_span"]

    thread = threading.Thread(target=set_and_forget)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        copies = [shallow_copy(original) for _ in range(5000)]
    finally:
        done.set()
        thread.join(10)
        sys.setswitchinterval(interval)
    assert {len(private(made)) for made in copies} <= {len(private(original)), len(private(original)) + 1}
