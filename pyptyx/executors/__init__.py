"""Executors: the same reduction over one or many workers, in one or many processes."""

from pyptyx.executors.base import Executor, share
from pyptyx.executors.communicator import Communicator
from pyptyx.executors.mpi import MpiCommunicator, MpiExecutor, world
from pyptyx.executors.serial import SerialExecutor
from pyptyx.executors.threads import ThreadExecutor

__all__ = [
    "Communicator",
    "Executor",
    "MpiCommunicator",
    "MpiExecutor",
    "SerialExecutor",
    "ThreadExecutor",
    "share",
    "world",
]
