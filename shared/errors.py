"""Every error the core raises on purpose; each message says what to do next."""

from __future__ import annotations


class RecommndrError(Exception):
    """Base of all deliberate errors."""


class InvalidEvent(RecommndrError):
    """An event breaks the event definition; the message names the field."""


class InvalidIdentifier(InvalidEvent):
    """An id is empty, too long, or holds a character that ids may not hold."""


class InvalidCursor(RecommndrError):
    """A cursor was not made by this shop, or not for this query."""


class ConfigurationError(RecommndrError):
    """A setting is missing or makes no sense."""


class SchemaMismatch(RecommndrError):
    """A model and the features offered to it are not of the same schema."""


class CorruptRecord(RecommndrError):
    """Stored bytes fail their checksum or name another release."""


class ReleaseUnavailable(RecommndrError):
    """A release cannot be loaded: a file is missing, or differs from its checksum."""


class UnusableRelease(ReleaseUnavailable):
    """A release may not be given traffic: its files or lists are not whole, or there is none to go back to."""


class UnknownRelease(RecommndrError):
    """No finished release has this id."""


class UnknownDeadLetter(RecommndrError):
    """The log has no dead row at these coordinates."""


class UnknownRecommendation(RecommndrError):
    """There is no record of a page with this id; the message tells why not."""


class UnknownReceipt(RecommndrError):
    """No erasure has this receipt."""


class UnknownItem(RecommndrError):
    """No release and no live catalogue knows this item."""


class InfrastructureFault(RecommndrError):
    """Redis, the broker log or the blob store cannot answer now; trying again later may succeed."""

    answered = False
    """The server did answer, with a refusal: nobody waited for it."""


class BrokerUnavailable(InfrastructureFault):
    """The broker log did not acknowledge."""


class EventsRefused(BrokerUnavailable):
    """The broker log answered and took none of these events; of other partitions it may take them."""

    answered = True


class StateUnavailable(InfrastructureFault):
    """The feature state cannot be read or written."""


class MarkMoved(RecommndrError):
    """A commit was refused: the partition's mark is not the one the chunk was folded on."""


class AllocationMoved(MarkMoved):
    """The allocation is not the one the decision was made on: somebody else moved it."""


class StreamRecreated(RecommndrError):
    """A sequence came with another enqueued_at than the log holds for it: the broker's stream was made anew."""


class BadDeployment(RecommndrError):
    """Too many folds fail: the code is at fault, not the events."""


class LakeConflict(RecommndrError):
    """The lake manifest changed underneath a writer, or names a file that is gone."""
