"""What a user asked for, on every path: read with her state, set through the log, held while Redis is away."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import msgspec

from functions.circuit import Circuit
from functions.pages.page_reader import NOBODY, PageReader, ShopperRead
from functions.preferences.overlay_writer import OverlayWriter, Written
from functions.preferences.preference_cache import TRUSTED_S, PreferenceCache, Wishes
from functions.releases.loaded_release import LoadedRelease
from shared.adapters.keys import user_key
from shared.adapters.redis_overlay import LAST_OF_INSTANT, Order, RedisOverlays
from shared.errors import CorruptRecord, InfrastructureFault
from shared.events import Preferences
from shared.features.overlay import NO_OVERLAY, Overlay
from shared.features.shard import Shopper, UserShard, merge_shards, newest_erasure

log = logging.getLogger(__name__)

STATE_UNAVAILABLE: Final = "state_unavailable"
NOT_PERSONALISED: Final = "not_personalised"
NO_WISHES: Final = Wishes(None)


class Releases(Protocol):
    """Who sees which release."""

    def release_for(self, user_id: str) -> LoadedRelease:
        """Raises ReleaseUnavailable."""
        ...


@dataclass(frozen=True, slots=True)
class SeenShopper:
    """A user as a page may use her at `as_of` (epoch ms, taken after the read).

    `fallback` says why a page knows nothing of her behaviour: the state cannot be read, or she does not wish it. Then
    `shopper` has an empty state and `read` shows nothing, but her preferences stand as far as they are known.
    """

    read: ShopperRead
    shopper: Shopper
    as_of: int
    fallback: str | None = None
    preferences_unavailable: bool = False


class PreferenceKeeper:
    """The one way to a user's preferences; safe to call from many threads."""

    def __init__(
        self,
        *,
        releases: Releases,
        reader: PageReader,
        overlays: RedisOverlays,
        circuit: Circuit,
        user_secret: str,
        clock: Callable[[], int],
        seconds: Callable[[], float],
    ) -> None:
        """`clock` tells epoch ms, `seconds` is a monotonic clock."""
        self._releases = releases
        self._reader = reader
        self._overlays = overlays
        self._writer = OverlayWriter(overlays, circuit)
        self._cache = PreferenceCache(seconds)
        self._secret = user_secret
        self._seconds = seconds
        self._heard: bytes | None = None
        self._circuit = circuit
        self._clock = clock

    def of(self, user_id: str | None) -> Wishes:
        """(preferences, unavailable) for a path that needs nothing else of her; without a user there are none.

        Raises ReleaseUnavailable.
        """
        if user_id is None:
            return NO_WISHES
        seen = self.see(user_id, self._releases.release_for(user_id), record=False)
        return Wishes(seen.shopper.preferences, seen.preferences_unavailable)

    def see(self, user_id: str, release: LoadedRelease, *, record: bool = True) -> SeenShopper:
        """The user as a page may use her; a state that cannot be read is no error. `record`: the nightly one too."""
        try:
            seen = self.read(user_id, release, record=record)
        except InfrastructureFault as error:
            log.debug("page without state: %s", error)
        except CorruptRecord:
            log.exception("page without state: what is stored cannot be read")
        else:
            wanted = seen.shopper.preferences
            return seen if wanted is None or wanted.personalised else _as_stranger(seen)
        wishes, as_of = self._cache.wishes(user_key(user_id, self._secret)), self._clock()
        shopper = replace(merge_shards([], as_of), preferences=wishes.preferences)
        return SeenShopper(NOBODY, shopper, as_of, STATE_UNAVAILABLE, wishes.unavailable)

    def read(self, user_id: str, release: LoadedRelease, *, record: bool = True) -> SeenShopper:
        """The user as she is, whether she wishes it or not. Raises StateUnavailable, CorruptRecord."""
        begun = self._cache.begin_read()
        waiting = self._writer.waiting(user_id)  # before the read: once it is written, the read may have missed it
        read = self._circuit.call(lambda: self._reader.shopper(user_id, release, record=record))
        as_of = self._clock()
        read = replace(read, overlay=read.overlay.merge(waiting.ahead_of(read.folded)))
        shards = [shard for shard in read.shards.values() if shard is not None]
        shopper = merge_shards(shards, as_of, overlay=read.overlay)
        self._cache.learn(user_key(user_id, self._secret), shopper.preferences, _newest(shards, read.overlay), begun)
        return SeenShopper(read, shopper, as_of)

    def acknowledged(self, user_id: str, overlay: Overlay) -> Written:
        """The broker log has her preferences, or her erasure: from now on they count here, and everywhere if it can be.

        Preferences that are dated back, or came too late, say nothing certain of someone who is not held: something
        newer stands in the state, or may.
        """
        version, erased_at, user = overlay.preferences, overlay.erased_at, user_key(user_id, self._secret)
        if erased_at is not None:
            self._cache.write(user, None, (erased_at, LAST_OF_INSTANT))
        written = self._writer.write(user_id, overlay)
        if version is not None:
            recent = version[0] > self._clock() - TRUSTED_S * 1000
            if (recent and written is not Written.SUPERSEDED) or self._cache.holds(user):
                self._cache.write(user, msgspec.convert(version[2], Preferences), version[:2])
        return written

    def is_waiting(self, user_id: str) -> bool:
        """Does this worker hold something of her that Redis does not have yet?"""
        return self._writer.waiting(user_id) != NO_OVERLAY

    def keep_up(self) -> None:
        """Write what waits, hear what others wrote, forget what is old; to be called again and again.

        Raises StateUnavailable.
        """
        self._cache.drop_old()
        self._writer.retry()
        asked_s = self._seconds()
        changes = self._circuit.call(lambda: self._overlays.changes_since(self._heard))
        self._cache.hear(changes.orders, asked_s)
        self._heard = changes.position


def _as_stranger(seen: SeenShopper) -> SeenShopper:
    """What is left of her for pages that may use nothing of her behaviour: the rules she set."""
    nothing = ShopperRead(dict.fromkeys(seen.read.shards), None, seen.read.overlay)
    return SeenShopper(nothing, seen.shopper.as_wished(), seen.as_of, NOT_PERSONALISED)


def _newest(shards: Sequence[UserShard], overlay: Overlay) -> Order:
    versions = [shard.preferences_version for shard in shards] + [overlay.preferences]
    erased: Order = (newest_erasure(shards, overlay), LAST_OF_INSTANT)
    return max([erased, *(version[:2] for version in versions if version is not None)])
