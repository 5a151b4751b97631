"""Measure quality: any data set, any protocol of published tables, through the modules that serve.

  leave_last_out   reads (user, pos, item) rows from --interactions
  given_split      reads (user, item) rows from --train and --test
  next_in_session  reads (session, pos, item) rows from --train and (prefix, target) rows from --test
  next_basket      reads (user, basket_no, item, part: history or future) rows from --interactions
  time_split       reads timed events from --interactions in one of batch.ingest_events' forms (--format), or a shop's
                   folder (--data), and makes pages by the night's own stages; where batch.evaluation.peers was asked
                   about the same pages, its methods stand in the report

Files are Parquet or CSV; --attributes names (item, attributes) rows. What is made stands in --work: a second call makes
what is missing. Exit codes: 0 measured, 2 wrong use or input (one line says what to do).
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from hashlib import file_digest
from pathlib import Path
from typing import Final

import msgspec

from batch.evaluation.files import ColumnNames
from batch.evaluation.judge import JudgeParams, Peer, judge
from batch.evaluation.night_pages import NightRequest, night_pages
from batch.evaluation.params import Parameters, load_parameters, save_parameters
from batch.evaluation.peers import load_peers
from batch.evaluation.protocols import EvaluationPages, EvaluationRequest, make_evaluation_pages, tune_request
from batch.evaluation.report import SEGMENT_METRICS, About, Report
from batch.evaluation.report_files import write_json, write_page
from batch.evaluation.report_text import print_report
from batch.evaluation.tuning import Journal, TuneBudget
from batch.ingest_events import FORMATS
from batch.tracking import Tracking
from shared.cli import command
from shared.errors import ConfigurationError
from shared.events import BEHAVIOUR, EventType

TIME_SPLIT: Final = "time_split"
WHAT_IS_ASKED: Final = {
    "leave_last_out": "the last item of each user, the one before it for the rankers; seen items masked",
    "given_split": "the published test pairs, a fifth of the training pairs for the rankers; seen items masked",
    "next_in_session": "the next item of every published prefix, later training sessions for the rankers; no mask",
    "next_basket": "the items of the next basket, the one before it for the rankers; no mask",
    TIME_SPLIT: "the hits of each session of the last period, asked for as it begins; the period before it for the "
    "rankers; the rules that serve",
}
"""In all of them every item of the catalogue is ranked."""


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Make pages, judge them, and write the report."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = _parser().parse_args(given)
    tuned = bool(arguments.tune or arguments.tune_minutes)
    if tuned and arguments.params is None:
        raise ConfigurationError("name the file that the tuned parameters go to with --params")
    held = arguments.params if not tuned or arguments.params.exists() else None
    parameters = load_parameters(held)
    if arguments.protocol == TIME_SPLIT:
        if tuned:
            raise ConfigurationError("--tune is for rows in order; time_split takes the parameters of --params")
        made = _time_split(arguments, parameters)
    else:
        request = _request(arguments, parameters)
        if tuned:
            request = _tuned(arguments, request)
        made = _rows_in_order(request)
    report = _judged(arguments, made, given)
    write_json(report, arguments.out or arguments.work / "report.json")
    if arguments.report is not None:
        write_page(report, arguments.report)
    print_report(report)
    return 0


@dataclass(frozen=True, slots=True)
class _Made:
    """Pages, of which files, by which parameters, and what was fitted on what."""

    pages: EvaluationPages
    files: Sequence[Path]
    parameters: Parameters
    fitted: list[str]


def _tuned(arguments: argparse.Namespace, request: EvaluationRequest) -> EvaluationRequest:
    uri = arguments.mlflow or f"sqlite:///{(request.work / 'mlflow.db').resolve()}"
    request.work.mkdir(parents=True, exist_ok=True)
    budget = TuneBudget(arguments.tune, arguments.tune_minutes)
    request = tune_request(request, budget, Journal.of(Tracking(uri, request.work.resolve())))
    save_parameters(arguments.params, request.parameters)
    return request


def _rows_in_order(request: EvaluationRequest) -> _Made:
    spared = "the test items" if request.refit else "the test items and the labels"
    fitted = [
        "label pages: sources fitted without labels and test items",
        f"test pages: sources fitted on all but {spared}; histories hold all but the test items",
        "rankers: learnt on label pages",
    ]
    return _Made(make_evaluation_pages(request), request.files, request.parameters, fitted)


def _time_split(arguments: argparse.Namespace, parameters: Parameters) -> _Made:
    of_file = (("--positives", arguments.positives), ("--mapping", arguments.mapping))
    request = NightRequest(
        work=arguments.work,
        data=arguments.data,
        interactions=arguments.interactions,
        file_format=arguments.format,
        ingest=tuple(word for name, value in of_file if value is not None for word in (name, str(value))),
        params=arguments.params,
        label_pages=parameters.pages.label_pages,
        negatives=parameters.pages.negatives,
        seed=arguments.seed,
    )
    if arguments.test_queries is not None:
        request = replace(request, test_pages=arguments.test_queries)
    found = night_pages(request, lambda text: print(text, flush=True))
    files = [path for path in (arguments.interactions, arguments.mapping) if path is not None]
    if arguments.data is not None:
        files.append(arguments.data / "lake/lake_manifest.json")
    return _Made(EvaluationPages(found.label, found.test, found.facts, found.parts), files, parameters, found.told)


def _judged(arguments: argparse.Namespace, made: _Made, given: Sequence[str]) -> Report:
    params = JudgeParams(
        metric=arguments.metric,
        max_per_category=made.parameters.sources.max_per_category,
        rankers=made.parameters.rankers,
        ablation_label_queries=arguments.ablation,
        ablation_test_queries=arguments.ablation,
        seed=arguments.seed,
    )
    about = About(
        title=arguments.title or made.files[0].stem,
        protocol=f"{arguments.protocol}: {WHAT_IS_ASKED[arguments.protocol]}",
        fitted=made.fitted,
        files={str(path): _sha256(path) for path in made.files},
        command=shlex.join(["python", "-m", "batch.evaluate_model", *given]),
        params_file="" if arguments.params is None else str(arguments.params),
        params_sha256="" if arguments.params is None else _sha256(arguments.params),
        params=msgspec.to_builtins(asdict(made.parameters)),
    )
    pages = made.pages
    peers = [Peer(one.name, one.lists, one.unseen) for one in load_peers(arguments.work, pages.test)]
    return judge(pages.label, pages.test, pages.facts, params, about=about, parts=pages.parts, peers=peers)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def _request(arguments: argparse.Namespace, parameters: Parameters) -> EvaluationRequest:
    columns = ColumnNames(**{one.name: getattr(arguments, f"{one.name}_column") for one in fields(ColumnNames)})
    return EvaluationRequest(
        protocol=arguments.protocol,
        work=arguments.work,
        parameters=parameters,
        interactions=arguments.interactions,
        train=arguments.train,
        test=arguments.test,
        attributes=arguments.attributes,
        columns=columns,
        event_type=None if arguments.event_type is None else EventType(arguments.event_type),
        refit=arguments.refit,
        test_queries=arguments.test_queries,
        processes=arguments.processes,
        seed=arguments.seed,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m batch.evaluate_model", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--protocol", required=True, choices=list(WHAT_IS_ASKED))
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="where what is made stands")
    files = parser.add_argument_group("files")
    files.add_argument("--interactions", type=Path, metavar="PATH", help="rows that the protocol splits")
    files.add_argument("--train", type=Path, metavar="PATH", help="rows to fit on, of a published split")
    files.add_argument("--test", type=Path, metavar="PATH", help="rows to test on, of a published split")
    files.add_argument("--attributes", type=Path, metavar="PATH", help="what is known of the items")
    for one in fields(ColumnNames):
        default = one.default or "none"
        files.add_argument(
            f"--{one.name}-column", default=one.default, metavar="NAME", help=f"its column (default {default})"
        )
    timed = parser.add_argument_group("for time_split")
    timed.add_argument("--data", type=Path, metavar="DIR", help="a shop's folder, instead of --interactions")
    timed.add_argument(
        "--format", default="table", choices=sorted(FORMATS), help="what --interactions is (default %(default)s)"
    )
    timed.add_argument("--mapping", type=Path, metavar="FILE", help="which column is what, for --format table")
    timed.add_argument("--positives", metavar="KIND[,KIND]", help="what a hit is: purchase, cart, view")
    how = parser.add_argument_group("how it is measured")
    how.add_argument("--event-type", choices=sorted(BEHAVIOUR), help="what a row is (default: as the protocol has it)")
    how.add_argument(
        "--refit",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="fit sources for the test on the labels too (default yes)",
    )
    how.add_argument("--params", type=Path, metavar="FILE", help="JSON of parameters; what it leaves out is default")
    how.add_argument("--test-queries", type=int, metavar="N", help="a sample of the test queries (default all)")
    how.add_argument("--metric", default=SEGMENT_METRICS[0], choices=SEGMENT_METRICS, help="what is compared by")
    how.add_argument(
        "--ablation",
        type=int,
        default=4_000,
        metavar="N",
        help="queries for the ablation, 0 none (default %(default)s)",
    )
    how.add_argument("--processes", type=int, default=2, metavar="N", help="that make pages (default %(default)s)")
    how.add_argument("--seed", type=int, default=0, help="of every draw (default %(default)s)")
    search = parser.add_argument_group("tuning, on labels alone; what is best goes to the file of --params")
    search.add_argument("--tune", type=int, metavar="N", help="N trials for each source")
    search.add_argument("--tune-minutes", type=float, metavar="M", help="as many trials as fit")
    search.add_argument("--mlflow", metavar="URI", help="where trials are tracked (default: SQLite in the work folder)")
    out = parser.add_argument_group("report")
    out.add_argument("--title", help="of the report (default: the first file's name)")
    out.add_argument("--out", type=Path, metavar="FILE", help="report.json (default: in the work folder)")
    out.add_argument("--report", type=Path, metavar="FILE", help="the report as a page of HTML")
    return parser


if __name__ == "__main__":
    sys.exit(main())
