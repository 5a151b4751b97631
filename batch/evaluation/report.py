"""What the judge found, as it is written to report.json: names here are the names there."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from batch.evaluation.lists_measured import ListFacts
from batch.metrics import Interval

CUTS: Final = (10, 20)
METRICS: Final = tuple(f"{name}@{k}" for name in ("ndcg", "recall", "hit_rate", "mrr") for k in CUTS)
SEGMENT_METRICS: Final = tuple(name for name in METRICS if name.endswith("@20"))


class Kind(StrEnum):
    """What made a method's lists."""

    SOURCE = "source"
    RANKER = "ranker"
    BASELINE = "baseline"
    PEER = "peer"


class Verdict(StrEnum):
    """What a paired 95% interval of a difference says."""

    ABOVE = "significantly above"
    SAME = "not different"
    BELOW = "significantly below"

    @classmethod
    def of(cls, difference: Interval) -> Verdict:
        """Above or below where the interval leaves 0 out."""
        return cls.ABOVE if difference.low > 0 else cls.BELOW if difference.high < 0 else cls.SAME


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured: a title, the protocol in a sentence, what was fitted on what, files with their sha256, the
    parameter file with its sha256 ("" where the defaults served), the parameters themselves, and the command.
    """

    title: str
    protocol: str
    fitted: list[str]
    files: dict[str, str]
    command: str
    params_file: str = ""
    params_sha256: str = ""
    params: dict[str, object] = {}


class Part(msgspec.Struct, frozen=True):
    """What a part of the work took; `peak_mib` is resident memory of the process while it ran."""

    name: str
    seconds: float
    peak_mib: float


class Comparison(msgspec.Struct, frozen=True):
    """One method against another on the report's metric, paired by query; no ratio where the other can be 0."""

    against: str
    difference: Interval
    ratio: Interval | None
    verdict: Verdict


class Method(msgspec.Struct, frozen=True, kw_only=True):
    """One row: metrics by name (`METRICS`), against the best source; what serves against it (None: itself)."""

    name: str
    kind: Kind
    metrics: dict[str, Interval]
    against_best: Comparison | None
    serving_against: Comparison | None
    lists: ListFacts


class Segment(msgspec.Struct, frozen=True):
    """The same over some of the queries: metrics at 20 by method, and what serves against each of the others there."""

    name: str
    meaning: str
    queries: int
    best_source: str
    methods: dict[str, dict[str, Interval]]
    serving_against: dict[str, Comparison]


class CandidateRecall(msgspec.Struct, frozen=True):
    """The mean share of a query's positives among the first k of a source, or of all sources' first k together.

    `all` is everything carried (merged: every candidate), `candidates` how many those are on average.
    """

    name: str
    at: dict[str, float]
    all: float
    candidates: float


class AblationRow(msgspec.Struct, frozen=True):
    """What is lost without a source or a feature group, the ranker trained anew: the metric less the metric without."""

    kind: str
    name: str
    metric: float
    loss: Interval
    verdict: Verdict
    candidate_recall: float


class Ablation(msgspec.Struct, frozen=True):
    """Rows of one ranker on a sample of queries; `metric` is that of the whole, trained on the same label pages."""

    ranker: str
    label_queries: int
    test_queries: int
    metric: float
    candidate_recall: float
    rows: list[AblationRow]


class ServingCost(msgspec.Struct, frozen=True):
    """What a ranker costs a request: median milliseconds for so many candidates through ONNX on one thread."""

    ranker: str
    candidates: int
    milliseconds: float
    model_kib: float


class Reliability(msgspec.Struct, frozen=True):
    """Rows whose probability fell into one bin: how many, the mean said and the share that came true."""

    rows: int
    said: float
    came: float


class Calibration(msgspec.Struct, frozen=True):
    """How true the serving ranker's calibrated probabilities are on the test pages."""

    brier: float
    expected_error: float
    bins: list[Reliability]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One set, one protocol. `metric` is what methods are compared by; `serves` and `best_source` name methods."""

    about: About
    schema: str
    metric: str
    queries: int
    users: int
    label_queries: int
    serves: str
    best_source: str
    methods: list[Method]
    candidate_recall: list[CandidateRecall]
    segments: list[Segment]
    ablation: Ablation | None
    serving_cost: list[ServingCost]
    calibration: Calibration | None
    parts: list[Part]

    def method(self, name: str) -> Method:
        """The row of that name; raises KeyError."""
        found = {one.name: one for one in self.methods}
        return found[name]

    def segment(self, name: str) -> Segment:
        """The segment of that name; raises KeyError."""
        found = {one.name: one for one in self.segments}
        return found[name]
