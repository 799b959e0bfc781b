"""Costly work that a worker thread does: a plain function, and what to do with its outcome back in the owner's task."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """`work` runs in a thread and may raise; exactly one of `done`, `failed` is called afterwards, with `now`, in the owner's task."""

    work: Callable[[], Any]
    done: Callable[[Any, float], None]
    failed: Callable[[Exception, float], None]
