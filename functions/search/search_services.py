"""Wiring of search."""

from __future__ import annotations

from functions.outside import Outside
from functions.pages.exposure_writer import ExposureWriter
from functions.search.personal_search import PersonalSearch
from functions.search.searcher import Searcher
from functions.serving import Serving
from shared.search.cursor import CursorCodec


def open_searcher(outside: Outside, serving: Serving, exposures: ExposureWriter) -> Searcher:
    """Cursors are sealed with the secret that every worker has."""
    personal = PersonalSearch(
        settings=outside.settings,
        reader=serving.reader,
        keeper=serving.keeper,
        circuit=outside.state_circuit,
        exposures=exposures,
        metrics=outside.metrics,
        new_id=outside.new_id,
    )
    cursors = CursorCodec(outside.settings.user_key_secret)
    return Searcher(releases=serving.releases, personal=personal, cursors=cursors)
