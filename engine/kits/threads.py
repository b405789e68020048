"""Threads for plain functions that an event loop waits for."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

T = TypeVar("T")
Work = Callable[[], None]


class DaemonThreads(Executor):
    """Runs each call at once, in a thread that is idle or a new one.

    There is no limit: the caller has one. The threads are daemons, so that a call that never
    returns does not keep the process from ending. What is no plain exception (`sys.exit()`, for
    example), or must not leave a coroutine (StopIteration), comes out as a RuntimeError.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._idle: list[queue.SimpleQueue[Work | None]] = []
        self._lock = threading.Lock()
        self._closed = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Start `fn(*args, **kwargs)` and return its future."""
        future: Future[T] = Future()

        def work() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                future.set_exception(_plain(error))
            else:
                future.set_result(result)

        with self._lock:
            if self._closed:
                raise RuntimeError(f"The threads {self._name} were shut down.")
            inbox = self._idle.pop() if self._idle else None
        if inbox is None:
            inbox = queue.SimpleQueue()
            thread = threading.Thread(
                target=self._serve, args=(inbox,), name=self._name, daemon=True
            )
            thread.start()
        inbox.put(work)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let idle threads end, and the others once their call returns; waits for none."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for inbox in idle:
            inbox.put(None)

    def _serve(self, inbox: "queue.SimpleQueue[Work | None]") -> None:
        while (work := inbox.get()) is not None:
            work()
            del work
            with self._lock:
                if self._closed:
                    return
                self._idle.append(inbox)


def _plain(error: BaseException) -> BaseException:
    if isinstance(error, Exception) and not isinstance(error, StopIteration):
        return error
    plain = RuntimeError(f"{type(error).__name__}: {error}".rstrip(": "))
    plain.__cause__ = error
    return plain.with_traceback(error.__traceback__)
