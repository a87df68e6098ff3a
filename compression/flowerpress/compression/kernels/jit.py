"""One decorator for all kernels: compiled on first use, cached on disk where that is possible."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

__all__ = ["jit"]

_log = logging.getLogger(__name__)
_lock = threading.RLock()  # a kernel compiles the kernels that it calls
_told = False

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """Compile ``function`` with numba when it is first called, without holding the GIL.

    Import stays cheap: numba is loaded by the first call. The machine code is cached beside the
    source or in the user's cache folder; where neither can be written (a read-only container), the
    kernel is compiled anew in every process and one warning says so.
    """
    compiled: list[Callable[P, R]] = []

    def kernel() -> Callable[P, R]:
        if not compiled:
            with _lock:
                if not compiled:
                    compiled.append(_compile(function))
        return compiled[0]

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return (compiled[0] if compiled else kernel())(*args, **kwargs)

    call.kernel = kernel  # type: ignore[attr-defined]
    return call


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    global _told
    from numba import njit

    # What a kernel calls must be compiled, too: numba cannot call the Python that waits for it.
    scope: dict[str, Any] = function.__globals__
    called = {
        name: scope[name].kernel()
        for name in function.__code__.co_names
        # Attributes stand among the names, too: x.size.
        if hasattr(scope.get(name), "kernel") and scope[name].__wrapped__ is not function
    }
    if called:
        own = FunctionType(
            function.__code__, {**scope, **called}, function.__name__, function.__defaults__
        )
        own.__module__, own.__qualname__ = function.__module__, function.__qualname__
        function = own

    try:
        kernel: Callable[..., Any] = njit(cache=True, nogil=True)(function)
    except RuntimeError as error:  # numba finds no folder that it can write to
        if not _told:
            _told = True
            _log.warning(
                "compiled kernels cannot be kept on disk (%s), so every process compiles them "
                "again; set NUMBA_CACHE_DIR to a writable folder to avoid that",
                error,
            )
        kernel = njit(nogil=True)(function)
    return kernel
