"""Executors: the same reduction over one or many workers."""

from pyptyx.executors.base import Executor, share
from pyptyx.executors.serial import SerialExecutor
from pyptyx.executors.threads import ThreadExecutor

__all__ = ["Executor", "SerialExecutor", "ThreadExecutor", "share"]
