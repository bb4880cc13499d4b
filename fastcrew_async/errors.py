"""Every error that fastcrew-async raises of its own.

FastcrewError
├── UnsupportedCrewAIError (ImportError)       install() met a CrewAI it does not know
├── BackendUnavailableError (ImportError)      FASTCREW_ASYNC_BACKEND=rust without the compiled core
├── ToolRecursionError (RecursionError)        a call nested too deep, or one that repeats one of its callers
├── RunTimeoutError (TimeoutError)             a run did not end within the seconds that it was given
├── ToolTimeoutError (TimeoutError)            a tool did not answer within its timeout; CrewAI tells the model
├── AbandonedCallsError (RuntimeError)         abandoned sync calls that still run hold all places of the worker pool
├── RuntimeClosedError (RuntimeError)          the runtime was closed, or the interpreter is exiting
├── ForkedProcessError (RuntimeError)          an object of the parent process was used after a fork
├── CorePanicError (RuntimeError)              a defect of the compiled core; please report it
├── HttpConnectionError (ConnectionError)      no connection to a server, or it was lost
├── HttpTimeoutError (TimeoutError)            a server did not answer in time
├── CodecError (ValueError)
│   ├── EncodeError                            a document has something in it that cannot be written
│   ├── DecodeError                            these bytes are no document; .offset is the byte
│   └── SchemaVersionError                     a document of a newer schema than this release reads
└── DatabaseError
    ├── DatabaseClosedError                    the database object was closed
    ├── DatabaseOpenError (OSError)            the file cannot be opened or created
    ├── DatabaseBusyError (TimeoutError)       another process held the file past the busy timeout
    ├── DatabaseLockedError                    a table is locked inside this process
    ├── DatabaseFullError (OSError)            no space is left on the device
    ├── DatabaseReadOnlyError (PermissionError)
    ├── DatabaseCorruptError                   the file is not a database, or is damaged
    ├── IntegrityError                         a constraint refused the statement
    └── StatementError (ValueError)            the SQL or its parameters are wrong
"""

from __future__ import annotations


class FastcrewError(Exception):
    """The root: ``except FastcrewError`` catches all that this package raises of its own."""


class UnsupportedCrewAIError(FastcrewError, ImportError):
    """CrewAI's version or one of its names is not what this release was made for."""


class BackendUnavailableError(FastcrewError, ImportError):
    """The compiled core was demanded and cannot be loaded."""


class ToolRecursionError(FastcrewError, RecursionError):
    """A call is nested deeper than ``max_depth``, or repeats one further up its chain; the outermost run ends."""


class RunTimeoutError(FastcrewError, TimeoutError):
    """A run took longer than the ``timeout`` it was given; it was cancelled."""


class ToolTimeoutError(FastcrewError, TimeoutError):
    """A tool took longer than the ``timeout`` it has; an async one was cancelled, a sync one left behind."""


class AbandonedCallsError(FastcrewError, RuntimeError):
    """Sync calls whose runs were cancelled still run on their threads, and no place is left for another."""


class RuntimeClosedError(FastcrewError, RuntimeError):
    """Work was handed to a runtime that is closing or closed."""


class ForkedProcessError(FastcrewError, RuntimeError):
    """An object that belongs to another process was used after a fork."""


class CorePanicError(FastcrewError, RuntimeError):
    """The compiled core panicked; the call failed and the process goes on."""


class HttpConnectionError(FastcrewError, ConnectionError):
    """There is no connection to the server, it was lost, or what came through it is no HTTP."""


class HttpTimeoutError(FastcrewError, TimeoutError):
    """The server did not answer in time."""


class CodecError(FastcrewError, ValueError):
    """The root of what :mod:`fastcrew_async.codec` raises."""


class EncodeError(CodecError):
    """A value cannot be written; the message says where in the document it is."""


class DecodeError(CodecError):
    """The bytes are not a document, or not the wanted one."""

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message)
        self.offset = offset
        """The byte at which reading ended; None where the bytes can be read and their meaning is wrong."""


class SchemaVersionError(CodecError):
    """The document's schema has another major version than those that this release reads."""


class DatabaseError(FastcrewError):
    """The root of all that :class:`fastcrew_async.Database` raises."""


class DatabaseClosedError(DatabaseError):
    """The database was closed."""


class DatabaseOpenError(DatabaseError, OSError):
    """The file cannot be opened or created: the folder is missing, or access is denied."""


class DatabaseBusyError(DatabaseError, TimeoutError):
    """Another process held the file for longer than the busy timeout."""


class DatabaseLockedError(DatabaseError):
    """A table is locked by another statement of the same process."""


class DatabaseFullError(DatabaseError, OSError):
    """The disk, or the database's size limit, is full."""


class DatabaseReadOnlyError(DatabaseError, PermissionError):
    """The file, or its folder, does not allow writing."""


class DatabaseCorruptError(DatabaseError):
    """The file is not a database, or is damaged."""


class IntegrityError(DatabaseError):
    """A constraint (unique, not null, foreign key, check) refused the statement."""


class StatementError(DatabaseError, ValueError):
    """The SQL, or what it was given, is wrong."""
