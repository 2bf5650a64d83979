"""One BLAS thread.

Sums of products depend on how they are split, so on the number of threads; with one the result is the same
whatever OPENBLAS_NUM_THREADS says. The matrices of a layer are also small enough for the handing-over to cost more
than a second thread gains, most of all while other programs compute.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    """Finding the libraries of the process takes milliseconds; numpy's is loaded for good."""
    return ThreadpoolController()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Linear algebra of numpy on one thread inside."""
    with _controller().limit(limits=1, user_api="blas"):
        yield
