"""Turn whatever a decoder raises into a bad cell with a reason in plain words."""

from __future__ import annotations

import errno
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import av

from plait.errors import BadCell

# errors of the machine, not of the file: the next try may succeed
PASSING = frozenset({errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ESTALE})


class Unread(BadCell):
    """A cell that could not be read this time, whatever its content is. The next try may succeed."""


@contextmanager
def guarded(reason: str) -> Iterator[None]:
    """Raise `BadCell` with this reason for whatever is raised within.

    Decoders of damaged files raise anything: errors of arithmetic, of memory, of their own code. What they
    say about it helps nobody who has only the file, so it is left out.
    """
    try:
        yield
    except BadCell:
        raise
    except MemoryError:
        raise Unread("not enough memory to decode it") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in PASSING:
            raise Unread("could not be read from the disk") from None
        if isinstance(error, (av.DecoderNotFoundError, av.DemuxerNotFoundError)):
            raise BadCell("in a format that cannot be decoded") from None
        raise BadCell(reason) from None


@contextmanager
def without_warnings() -> Iterator[None]:
    """Hide what Pillow warns of: large images, and damages that it reads over.

    Python keeps one list of filters for all threads, so this must surround them.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield
