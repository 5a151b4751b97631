"""What was shown and why, read back from the exposures while they are kept."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

import msgspec
import numpy as np

from functions.pages.exposure_writer import MINUTE_MS, ExposureWriter
from functions.pages.page_explanation import ScoreParts, score_parts
from functions.pages.recommendation_ids import is_sampled, made_at
from functions.preferences.preference_keeper import PreferenceKeeper, Releases
from functions.releases.loaded_release import LoadedRelease
from shared.errors import CorruptRecord, UnknownRecommendation
from shared.events import from_ms
from shared.features.shard import newest_erasure
from shared.features.vector import SCHEMA
from shared.ingest.exposures import exposure_files_of_minute, exposure_lines_of
from shared.ports import BlobStore

log = logging.getLogger(__name__)

CLOCK_SKEW_MS: Final = MINUTE_MS
"""So far another worker's clock may be ahead of this one's."""
NOT_ON_RECORD: Final = "no such page is on record: it was never shown, its user was erased, or its record is gone"


class RecordedPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page as its exposure holds it; the columns are by place, `as_of` is epoch ms."""

    recommendation_id: str
    release: str
    user_id: str | None = None
    as_of: int
    fallback: str | None = None
    limit: int
    category: str | None = None
    context_item: str | None = None
    exclude: list[str] = []
    device: str | None = None
    surface: str | None = None
    candidates_count: int
    removed: dict[str, int] = {}
    items: list[str]
    scores: list[float]
    sources: list[list[str]]
    reasons: list[str]
    propensities: list[float]
    retrieval_ranks: list[list[int]]
    retrieval_scores: list[list[float]]
    schema: str
    vectors: str

    def said(self, place: int) -> list[tuple[str, int, float]]:
        """(source, rank in its list from 1, score) of those that carried the item at this place (from 0)."""
        columns = zip(self.retrieval_ranks[place], self.retrieval_scores[place], strict=True)
        carried = [(rank, score) for rank, score in columns if rank > 0]
        return [(name, rank, score) for name, (rank, score) in zip(self.sources[place], carried, strict=True)]


class ServedReleases(Releases, Protocol):
    """The releases that are served."""

    @property
    def loaded(self) -> tuple[LoadedRelease, ...]:
        """The heaviest first."""
        ...


class RecordedPages:
    """Finds pages by id; safe to call from many threads."""

    def __init__(
        self,
        *,
        blobs: BlobStore,
        exposures: ExposureWriter,
        releases: ServedReleases,
        keeper: PreferenceKeeper,
        clock: Callable[[], int],
        sampling: float,
    ) -> None:
        """`exposures` holds what this worker has not written yet; `sampling` is the share of pages recorded."""
        self._blobs = blobs
        self._exposures = exposures
        self._releases = releases
        self._keeper = keeper
        self._clock = clock
        self._sampling = sampling

    def page(self, recommendation_id: str) -> tuple[str, RecordedPage]:
        """Whose page it was, and the page.

        Raises:
            UnknownRecommendation: there is no record of it, or its user was erased since.
            InfrastructureFault: the blob store does not answer, or the state does not tell whether she was.
        """
        page = self._find(recommendation_id)
        if page.user_id is None or self._erased_at(page.user_id) >= page.as_of:
            raise UnknownRecommendation("the user of this page was erased")
        return page.user_id, page

    def _find(self, recommendation_id: str) -> RecordedPage:
        at = made_at(recommendation_id)
        if at is None or at > self._clock() + CLOCK_SKEW_MS:
            raise UnknownRecommendation(NOT_ON_RECORD)
        minute_at = at // MINUTE_MS * MINUTE_MS
        needle = b'"recommendation_id":"%s"' % recommendation_id.encode()
        for lines in self._lines(minute_at):
            for line in lines:
                if needle in line:
                    return msgspec.json.decode(line, type=RecordedPage)
        raise UnknownRecommendation(self._why_not(recommendation_id, minute_at))

    def score_parts(self, page: RecordedPage) -> Sequence[ScoreParts] | None:
        """Each shown item's score explained from the recorded features, while the page's release is served."""
        release = next((one for one in self._releases.loaded if one.release_id == page.release), None)
        if release is None or page.schema != SCHEMA.digest:
            return None
        vectors = np.frombuffer(base64.b64decode(page.vectors), "<f4").reshape(-1, len(SCHEMA.names))
        return score_parts(release, vectors.astype(np.float32), np.array(page.scores))

    def _erased_at(self, user_id: str) -> int:
        read = self._keeper.read(user_id, self._releases.release_for(user_id), record=False).read
        return newest_erasure((shard for shard in read.shards.values() if shard is not None), read.overlay)

    def _lines(self, minute_at: int) -> Iterator[list[bytes]]:
        """What may hold a page of this minute: a page made at its very end is recorded in the next."""
        minutes = (minute_at, minute_at + MINUTE_MS)
        for one in minutes:
            yield self._exposures.lines_of_minute(one)
        for one in minutes:
            for name in exposure_files_of_minute(self._blobs, one):
                try:
                    yield exposure_lines_of(self._blobs, name)
                except CorruptRecord:
                    log.exception("exposures are passed over")

    def _why_not(self, recommendation_id: str, minute_at: int) -> str:
        if not is_sampled(recommendation_id, self._sampling):
            return f"this page was not recorded: the setting EXPOSURE_SAMPLING keeps {self._sampling:.0%} of them"
        written_at = minute_at + 2 * MINUTE_MS
        if written_at > self._clock():
            return (
                "no record of this page yet; one that another worker showed is written when its minute is over: "
                f"ask again after {from_ms(written_at):%Y-%m-%dT%H:%M:%SZ}"
            )
        return NOT_ON_RECORD
