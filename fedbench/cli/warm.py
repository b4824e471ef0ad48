"""The parent of a study's runs: a process that has imported everything, and forks each run.

A command that carries out a study forks it from itself, see `forked`. Elsewhere, or when it has to
be replaced, `fedbench.study.warm` starts it as a program, `fedbench.cli.warm_program`. Over a
socket it gets a message for each run: the words of the command, the data that it needs, and two
descriptors, one for what the run prints and one for the answer. The answer is the run's process id,
then its exit status. A message whose answer stays empty was refused: forking was not safe, or the
code that this process has imported has changed on disk.

A run has its own process group, and otherwise what its parent was started with. It shares the
parent's memory until one of them writes to it, so that a study holds its data once, and no run can
change what another one reads. Nothing here may start a thread or initialise a GPU, because a fork
copies only the thread that forks.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import socket
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from importlib import import_module
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..study.warm import SUPPORTED, Parent, ends
from . import leave

if TYPE_CHECKING:
    from ..plugins.registry import Registry

LIMIT = 1 << 20
"""Bytes of a message at most."""

USED = ("fedbench.cli.app", "fedbench.cli.printing", "fedbench.interface.runs", "numpy.random")
"""What runs import besides the plugins."""


class WarmParent:
    """Forks runs on request, and reports how they end.

    Args:
        control: where requests come from.
        registry: what is installed; the runs get it too.
        commands: the program's commands.
    """

    def __init__(self, control: socket.socket, registry: Registry, commands: click.Command) -> None:
        self._control, self._registry, self._commands = control, registry, commands
        self._runs: dict[BaseProcess, Connection] = {}
        self._refused = False
        self._files: dict[str, tuple[int, ...]] = {}
        self._note_files()
        self._threads = _threads()

    def serve(self) -> None:
        """Answer requests until the study has ended, or one was refused and no run is left."""
        while self._runs or not self._refused:
            ended = {run.sentinel: run for run in self._runs}
            for ready in wait([self._control, *ended]):
                if ready is not self._control:
                    self._report(ended[ready])  # type: ignore[index]
                elif not self._answer():
                    return

    def _answer(self) -> bool:
        """Carry out or refuse a request; return false when the study has ended."""
        message, descriptors, _, _ = socket.recv_fds(
            self._control, LIMIT, 2, socket.MSG_CMSG_CLOEXEC
        )
        if not message:
            return False
        log, answer = descriptors
        request, connection = json.loads(message), Connection(answer, readable=False)
        try:
            if self._is_current() and self._hold(request["data"], request["root"]):
                self._fork(request["words"], log, connection)
            else:
                self._refused = True
                connection.close()
        finally:
            os.close(log)
        return True

    def _hold(self, choice: dict[str, Any], root: str | None) -> bool:
        """Load a run's data, if they can be; return whether this process can still be forked.

        An error is left to the run, which loads the data again and reports it.
        """
        from ..loading import keep
        from ..store.files import default_data_root

        folder = Path(os.path.expanduser(root)) if root else default_data_root()
        with redirect_stderr(sys.stdout), suppress(Exception):  # which leads nowhere
            keep(self._registry, choice, folder)
        self._note_files()
        return threading.active_count() == 1 and _threads() <= self._threads

    def _fork(self, words: Sequence[str], log: int, connection: Connection) -> None:
        others = [self._control, *self._runs.values()]
        more = (self._commands, words, self._registry, log, others, os.getpid())
        gc.freeze()  # the collector of a run leaves shared memory alone, which it would copy
        for finalizer in tuple(weakref.finalize._registry):  # type: ignore[attr-defined]
            finalizer.atexit = False  # torch has hundreds; they are not the run's, and take 50 ms
        run = multiprocessing.get_context("fork").Process(target=_carry_out, args=more)
        run.start()
        self._runs[run] = connection
        _send(connection, run.pid)

    def _report(self, run: BaseProcess) -> None:
        run.join()
        connection = self._runs.pop(run)
        _send(connection, run.exitcode)
        connection.close()

    def _note_files(self) -> None:
        """Note the state of the files of the modules that were imported since the last call."""
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if isinstance(file, str) and file not in self._files:
                self._files[file] = _state(file)

    def _is_current(self) -> bool:
        """Return whether the files of all imported modules are as they were.

        A run's fingerprint is that of the code on disk, which must be the code that runs.
        """
        return all(_state(file) == before for file, before in self._files.items())


def _carry_out(
    commands: click.Command,
    words: Sequence[str],
    registry: Registry,
    log: int,
    others: Sequence[socket.socket | Connection],
    parent: int,
) -> None:
    """Carry out a run in a process that has just been forked."""
    import atexit

    from ..study import PARENT

    os.setpgid(0, 0)
    for other in others:  # the study must see it when the parent closes them
        other.close()
    for standard in (1, 2):
        os.dup2(log, standard)
    os.close(log)
    os.environ[PARENT] = str(parent)
    try:
        commands(words, prog_name="fedbench", obj=registry)
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out


def _send(connection: Connection, number: int | None) -> None:
    with suppress(OSError):  # the study has stopped waiting
        connection.send(number)


def _state(file: str) -> tuple[int, ...]:
    try:
        found = os.stat(file)
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_size, found.st_ino


def _threads() -> int:
    """Return the number of threads of this process, those of native libraries included."""
    return len(os.listdir("/proc/self/task"))


@contextmanager
def forked(registry: Registry) -> Iterator[Parent | None]:
    """Fork a warm parent from this command, which has imported everything already.

    Only the program ``fedbench`` can be forked, directly after its imports: any other process may
    have threads, or state of its own, that the runs would get.

    Args:
        registry: what is installed.

    Yields:
        the parent, which ends with the context; ``None`` where this process cannot be forked.
    """
    if not (SUPPORTED and leave.program and threading.active_count() == 1):
        yield None
        return
    mine, theirs = ends()
    process = multiprocessing.get_context("fork").Process(
        target=_serve_study,
        args=(theirs, mine, registry, click.get_current_context().find_root().command),
    )
    process.start()
    theirs.close()

    def kill() -> None:
        process.kill()
        process.join()

    parent = Parent(mine, kill)
    try:
        yield parent
    finally:
        parent.end()


def _serve_study(
    control: socket.socket, other: socket.socket, registry: Registry, commands: click.Command
) -> None:
    """Serve a study in a process that it has just forked."""
    os.setpgid(0, 0)  # Ctrl-C reaches only the study
    other.close()  # so that this process sees it when the study ends
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            standard = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, standard)
    leave.guard()
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
    serve(control, registry, commands)


def serve(control: socket.socket, registry: Registry, commands: click.Command) -> None:
    """Read what all runs need, serve the study at the other end of the socket, and exit."""
    from ..store import fingerprint
    from ..store.environment import versions

    for name in USED:
        import_module(name)
    fingerprint.of_code(registry)
    versions()
    WarmParent(control, registry, commands).serve()
    os._exit(0)  # its runs end with it
