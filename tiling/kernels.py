"""Loops that are compiled when they are first called: importing them costs nothing.

The one idea: a Numba function binds a name, not a compiler. Numba and LLVM take 65 MB and a quarter
of a second of every process that imports them, and most that import a kernel (the command line,
the process that hands out work) never call it. At the first call of any kernel of a module, all
kernels that the module names become Numba's own; they may call each other as usual.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]

_binding = threading.RLock()


def njit(**options: Any) -> Callable[[Function], Function]:
    """Return a decorator that compiles a function for ``numba.njit`` when it is first called.

    Args:
        options: of ``numba.njit``; ``cache=True`` keeps machine code beside the source.
    """

    def decorate(function: Function) -> Function:
        return Kernel(function, options)

    return decorate


class Kernel:
    """A function to be compiled.

    Attributes:
        py_func: the function as it is written.
    """

    def __init__(self, function: Function, options: dict[str, Any]) -> None:
        functools.update_wrapper(self, function)
        self.py_func = function
        self._options = options
        self._compiled: Function | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the compiled function."""
        return (self._compiled or self.compiled())(*arguments)

    def compiled(self) -> Function:
        """Return Numba's function, and put it, and those it may call, in the place of kernels."""
        with _binding:
            if self._compiled is None:
                import numba

                self._compiled = numba.njit(**self._options)(self.py_func)
                names = self.py_func.__globals__
                for name, value in list(names.items()):
                    if isinstance(value, Kernel):
                        names[name] = value.compiled()
            return self._compiled
