"""Work on many files in parallel, with results in order and little in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from edgekit.cores import cores

Item = TypeVar("Item")
Result = TypeVar("Result")
# Most submitted items: keeps every thread busy while one file takes long. Executor.map submits all at once.
AHEAD = 128


def in_order(function: Callable[[Item], Result], items: Iterable[Item]) -> Generator[Result, None, None]:
    """Yield ``map(function, items)``, computed in as many threads as `cores`.

    An error or Ctrl-C cancels the items that have not been started.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(cores()) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
