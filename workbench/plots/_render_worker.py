"""A process of its own that turns figure JSON into pictures with one warm browser; run as a script.

Why a process: a browser that hangs can be killed with it, an event loop already running in the caller does
not matter, and nothing of it is left at exit. One JSON line in (figure, options, seconds allowed), one out
(base64 or the error).
"""

import asyncio
import base64
import json
import os
import signal
import sys
import threading

IDLE = 120.0  # seconds without work after which the browser is given back


def kill_and_leave(held: list) -> None:
    """The hard stop: the browser's whole process group (kaleido starts one), then this process."""
    process = getattr(held[0], "subprocess", None) if held else None
    if process is not None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except AttributeError:  # Windows has no process groups
            process.kill()
        except ProcessLookupError:
            pass
    os._exit(3)


async def serve(inbox, answer) -> None:
    loop = asyncio.get_running_loop()
    held: list = []  # the browser, once there is one
    while True:
        try:
            line = await asyncio.wait_for(loop.run_in_executor(None, inbox.readline), IDLE)
        except TimeoutError:
            break
        if not line:
            break
        job = json.loads(line)
        watchdog = threading.Timer(job["seconds"], lambda: kill_and_leave(held))
        watchdog.daemon = True
        watchdog.start()
        try:
            if not held:
                from kaleido import Kaleido

                held.append(Kaleido(n=1, mathjax=False, path=job["browser"], timeout=job["seconds"]))
                await held[0].open()
            data = await held[0].calc_fig(job["figure"], opts=job["options"])
            answer({"data": base64.b64encode(data).decode()})
        except Exception as e:
            answer({"error": f"{type(e).__name__}: {e}"})
        finally:
            watchdog.cancel()
    if held:
        watchdog = threading.Timer(10, lambda: kill_and_leave(held))
        watchdog.daemon = True
        watchdog.start()
        await held[0].close()


def main() -> None:
    # Libraries may print: keep the real stdout for answers only.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: dict) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(serve(sys.stdin, answer))
    os._exit(0)  # a thread may still wait in readline


if __name__ == "__main__":
    main()
