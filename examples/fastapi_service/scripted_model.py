"""A model without a key, for trying the service: prints what to start the service with and answers until ctrl-c.

python examples/fastapi_service/scripted_model.py
"""

from __future__ import annotations

import contextlib
import re
import threading

from fastcrew_async.testing import ModelServer, Request


def answer(request: Request) -> str:
    topic = re.search(r"something true about (.+?)\.", request.text)
    return f"There is more to {topic.group(1) if topic else 'everything'} than meets the eye."


if __name__ == "__main__":
    with ModelServer(answer, latency=0.5) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"OPENAI_API_KEY=unused OPENAI_BASE_URL={server.base_url}", end=" ")
        print("uvicorn --app-dir examples/fastapi_service app:app", flush=True)
        threading.Event().wait()
