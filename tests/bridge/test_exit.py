"""Forks and the end of the interpreter, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest


@pytest.fixture
def run(backend, tmp_path):
    def start(code: str) -> subprocess.CompletedProcess[str]:
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(code))
        # Without asyncio's debug mode, which speaks of slow callbacks on a busy machine.
        env = {**os.environ, "FASTCREW_ASYNC_BACKEND": backend.name, "PYTHONASYNCIODEBUG": ""}
        command = [sys.executable, "-W", "ignore::DeprecationWarning", str(script)]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)

    return start


def assert_silent(done: subprocess.CompletedProcess[str], out: str = "") -> None:
    assert (done.returncode, done.stdout, done.stderr) == (0, out, "")


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@needs_fork
def test_a_forked_child_has_a_runtime_of_its_own(run):
    done = run(
        """
        import asyncio, gc, os, sys
        from fastcrew_async import runtime, workers
        from fastcrew_async.errors import ForkedProcessError

        parents = runtime.get()
        asyncio.run(parents.sleep(0))
        asyncio.run(workers.pool().run(int))
        pid = os.fork()
        if pid == 0:
            for use in (lambda: asyncio.run(parents.sleep(0)), lambda: parents.close()):
                try:
                    use()
                except ForkedProcessError as error:
                    assert f"belongs to process {os.getppid()}" in str(error), error
                else:
                    raise AssertionError("the parent's runtime was used")
            assert runtime.get() is not parents
            asyncio.run(asyncio.wait_for(runtime.sleep(0.001), 10))
            assert asyncio.run(asyncio.wait_for(workers.pool().run(lambda: 5), 10)) == 5
            del parents
            gc.collect()
            sys.exit(0)
        _, status = os.waitpid(pid, 0)
        assert status == 0, status
        asyncio.run(asyncio.wait_for(parents.sleep(0.001), 10))
        """
    )
    assert_silent(done)


@needs_fork
def test_a_fork_with_work_in_flight(run):
    """The child drops what it inherited, and neither hangs nor ends the parent's work."""
    done = run(
        """
        import asyncio, gc, os, time
        from fastcrew_async import runtime, workers

        async def main():
            operations = [runtime.get().sleep(0.2) for _ in range(100)]
            tasks = [asyncio.ensure_future(operation) for operation in operations]
            jobs = [asyncio.ensure_future(workers.pool().run(time.sleep, 0.2)) for _ in range(5)]
            await asyncio.sleep(0.01)
            pid = os.fork()
            if pid == 0:
                asyncio._set_running_loop(None)
                for task in [*tasks, *jobs]:
                    task._log_destroy_pending = False
                for operation in operations:
                    operation.close()
                del operation, operations, task, tasks, jobs
                gc.collect()
                asyncio.run(asyncio.wait_for(runtime.sleep(0.001), 10))
                assert asyncio.run(asyncio.wait_for(workers.pool().run(lambda: 5), 10)) == 5
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
            await asyncio.wait_for(asyncio.gather(*tasks, *jobs), 10)

        asyncio.run(main())
        """
    )
    assert_silent(done)


def test_the_interpreter_exits_with_work_in_flight(run):
    done = run(
        """
        import asyncio, threading, time
        from fastcrew_async import runtime, workers

        begun = threading.Barrier(3)

        def loop_thread():
            async def main():
                tasks = [asyncio.ensure_future(runtime.sleep(3600)) for _ in range(100)]
                tasks += [asyncio.ensure_future(runtime.sleep(0.001 * n)) for n in range(100)]
                tasks.append(asyncio.ensure_future(workers.pool().run(time.sleep, 3600)))
                tasks.append(asyncio.ensure_future(workers.pool().run(int)))
                await asyncio.sleep(0.01)
                begun.wait(10)
                await asyncio.gather(*tasks)
            asyncio.run(main())

        for _ in range(2):
            threading.Thread(target=loop_thread, daemon=True).start()
        begun.wait(10)
        print("out")
        """
    )
    assert_silent(done, "out\n")


def test_the_interpreter_exits_from_inside_the_loop(run):
    done = run(
        """
        import asyncio, sys
        from fastcrew_async import runtime

        async def main():
            tasks = [asyncio.ensure_future(runtime.sleep(3600)) for _ in range(100)]
            await asyncio.sleep(0.01)
            print("out", flush=True)
            sys.exit(0)

        asyncio.run(main())
        """
    )
    assert_silent(done, "out\n")


def test_the_interpreter_exits_with_a_loop_that_is_still_open(run):
    done = run(
        """
        import asyncio
        from fastcrew_async import runtime

        loop = asyncio.new_event_loop()
        operation = runtime.get().sleep(0.001)
        loop.run_until_complete(runtime.get().sleep(0))

        async def begin():
            operation.send(None)

        loop.run_until_complete(begin())
        """
    )
    assert done.returncode == 0
    # An unclosed loop is the caller's; only asyncio itself may speak of it.
    assert "fastcrew" not in done.stderr
    assert "panick" not in done.stderr


def test_keyboard_interrupt_during_an_await(run):
    done = run(
        """
        import asyncio, os, signal, threading, time
        from fastcrew_async import runtime

        def interrupt():
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGINT)

        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
        threading.Thread(target=interrupt).start()
        try:
            asyncio.run(runtime.sleep(3600))
        except KeyboardInterrupt:
            print("interrupted")
        """
    )
    assert_silent(done, "interrupted\n")


def test_the_interpreter_exits_with_a_loop_that_watches_no_descriptors(run):
    done = run(
        """
        import asyncio, threading
        from fastcrew_async import runtime

        class NoReader(asyncio.SelectorEventLoop):
            def add_reader(self, *args):
                raise NotImplementedError

        begun = threading.Event()

        def loop_thread():
            async def main():
                tasks = [asyncio.ensure_future(runtime.sleep(0.0005 * n)) for n in range(1000)]
                await asyncio.sleep(0.05)
                begun.set()
                await asyncio.gather(*tasks)
            NoReader().run_until_complete(main())

        threading.Thread(target=loop_thread, daemon=True).start()
        begun.wait(10)
        """
    )
    assert_silent(done)


@pytest.mark.parametrize("watches", [True, False], ids=["watching", "not watching"])
def test_the_interpreter_exits_while_a_daemon_thread_is_inside_the_bridge(run, watches):
    # Before Python 3.14 the thread is ended by unwinding its stack, in the middle of Python code that the core called.
    # Some exits of ten met it there.
    for _ in range(8):
        done = run(
            f"""
            import asyncio, sys, threading
            from fastcrew_async import runtime

            sys.setswitchinterval(1e-6)

            class Loop(asyncio.SelectorEventLoop):
                def add_reader(self, *args):
                    if not {watches}:
                        raise NotImplementedError
                    super().add_reader(*args)

            begun = threading.Event()

            def loop_thread():
                async def calls():
                    while True:
                        await runtime.get().echo(1)
                        await runtime.sleep(0.0001)

                async def main():
                    tasks = [asyncio.ensure_future(calls()) for _ in range(20)]
                    await asyncio.sleep(0.02)
                    begun.set()
                    await asyncio.gather(*tasks)
                Loop().run_until_complete(main())

            threading.Thread(target=loop_thread, daemon=True).start()
            begun.wait(10)
            """
        )
        assert_silent(done)
