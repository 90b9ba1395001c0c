"""An asyncio event loop on a background thread, for code that is not asynchronous."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from typing import Any, TypeVar

from drpo_rewards.errors import ConfigError, ServiceUnavailableError

ResultT = TypeVar("ResultT")


class BackgroundLoop:
    """Runs coroutines on a daemon thread. Close it, or use it in a `with` block.

    Args:
        name: the thread's name, which debuggers show.
    """

    def __init__(self, name: str) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    @property
    def closed(self) -> bool:
        """Whether `close` was called, or this is another process, which has no such thread."""
        return self._loop.is_closed() or self._process != os.getpid()

    def submit(self, coroutine: Coroutine[Any, Any, ResultT]) -> Future[ResultT]:
        """Start a coroutine and return at once; may be called from any thread.

        Raises:
            ServiceUnavailableError: the loop is closed.
            ConfigError: it was made in another process. A fork copies no thread, so nobody would run the coroutine.
        """
        if self._process != os.getpid():
            coroutine.close()
            raise ConfigError("this client was made before a fork of the process; make one in each process")
        if self.closed:
            coroutine.close()
            raise ServiceUnavailableError("this client is closed")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, ResultT]) -> ResultT:
        """Run a coroutine to its end and return its result; Ctrl-C cancels it.

        Raises:
            ServiceUnavailableError: the loop is closed, or was closed during the call.
        """
        future = self.submit(coroutine)
        try:
            return future.result()
        except CancelledError:
            raise ServiceUnavailableError("this client was closed during the call") from None
        except KeyboardInterrupt:
            future.cancel()
            raise

    def close(self) -> None:
        """Cancel what still runs, stop the loop and end its thread. A second call does nothing."""
        if self.closed:
            return
        asyncio.run_coroutine_threadsafe(_cancel_other_tasks(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> BackgroundLoop:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


async def _cancel_other_tasks() -> None:
    """Cancel every other task of this loop, so that nobody waits for a result that never comes."""
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
