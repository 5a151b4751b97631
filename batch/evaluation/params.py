"""Every parameter that can be tuned, in one JSON document that a report names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec

from batch.models.rankers import RankersParams
from batch.retrieval_span import RetrievalParams
from shared.candidates.params import SourceParams
from shared.errors import ConfigurationError

DIGEST_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class PageParams:
    """How pages of the past are drawn: at most `label_pages` to learn from, `negatives` kept of each.

    `spread_days`: over so many pseudo-days the sessions of a file without times are spread, in order of appearance.
    """

    label_pages: int = 12_000
    negatives: int = 80
    spread_days: float = 90.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """Retrieval at night and its reading at request time, rankers, and the pages they learn from."""

    retrieval: RetrievalParams = field(default_factory=RetrievalParams)
    sources: SourceParams = field(default_factory=SourceParams)
    rankers: RankersParams = field(default_factory=RankersParams)
    pages: PageParams = field(default_factory=PageParams)

    @property
    def digest(self) -> str:
        """A fingerprint of all values, 16 hexadecimal digits."""
        return digest_of(asdict(self))


def load_parameters(path: Path | None) -> Parameters:
    """The parameters of a file, or the defaults without one.

    Raises ConfigurationError, naming what is wrong, when the file is missing or not JSON, holds a name that is no
    parameter, or a value of the wrong type.
    """
    if path is None:
        return Parameters()
    try:
        return parameters_of(msgspec.json.decode(path.read_bytes(), type=dict[str, Any]))
    except FileNotFoundError as error:
        raise ConfigurationError(f"there is no parameter file {path}") from error
    except (msgspec.DecodeError, ConfigurationError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def save_parameters(path: Path, parameters: Parameters) -> None:
    """Write all values, defaults too: a row stays what it was when a default moves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(asdict(parameters)), indent=1) + b"\n")


def parameters_of(document: dict[str, Any]) -> Parameters:
    """From nested mappings of any of the values; raises ConfigurationError as `load_parameters`."""
    known = msgspec.to_builtins(Parameters())
    return msgspec.convert(_merged(known, document, ""), Parameters)


def replaced(parameters: Parameters, values: dict[str, Any]) -> Parameters:
    """With other values, by dotted names such as retrieval.cooccurrence.backward; raises as `load_parameters`."""
    document: dict[str, Any] = {}
    for name, value in values.items():
        *path, last = name.split(".")
        held = document
        for part in path:
            held = held.setdefault(part, {})
        held[last] = value
    whole = _merged(msgspec.to_builtins(parameters), document, "")
    return msgspec.convert(whole, Parameters)


def digest_of(document: Any) -> str:  # noqa: ANN401 - whatever JSON can say
    """A fingerprint of a JSON document, 16 hexadecimal digits."""
    return blake2b(msgspec.json.encode(document, order="deterministic"), digest_size=DIGEST_BYTES).hexdigest()


def _merged(known: dict[str, Any], given: dict[str, Any], where: str) -> dict[str, Any]:
    merged = dict(known)
    for name, value in given.items():
        path = f"{where}{name}"
        if name not in known:
            raise ConfigurationError(f"{path} is no parameter; there are {', '.join(sorted(known))}")
        if isinstance(known[name], dict) and known[name]:
            if not isinstance(value, dict):
                raise ConfigurationError(f"{path} must hold an object, with some of {', '.join(sorted(known[name]))}")
            merged[name] = _merged(known[name], value, f"{path}.")
        elif not _fits(known[name], value):
            raise ConfigurationError(f"{path} must be like {known[name]!r}, not {value!r}")
        else:
            merged[name] = value
    return merged


def _fits(held: Any, value: Any) -> bool:  # noqa: ANN401 - whatever JSON can say
    if isinstance(held, bool) or held is None or isinstance(held, str):
        return held is None or type(held) is type(value)
    if isinstance(held, int):
        return isinstance(value, int) and not isinstance(value, bool)
    if isinstance(held, float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    return isinstance(value, dict) if isinstance(held, dict) else isinstance(value, list | tuple)
