"""Every parameter that can be tuned, in one JSON document that a report names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, is_dataclass, replace
from hashlib import blake2b
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, get_type_hints

import msgspec

from batch.models.rankers import RankersParams
from batch.retrieval_span import RetrievalParams
from shared.candidates.params import SourceParams
from shared.errors import ConfigurationError

DIGEST_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class PageParams:
    """How pages of the past are drawn: at most `label_pages` to learn from, `negatives` kept of each.

    `spread_days`: over so many pseudo-days the sessions of a file without times are spread, in order of appearance;
    `cohesion`: how much the labels of a user whose pairs have no times hang together, as a test from a later time does
    (`batch.evaluation.hold_out`; 0: a plain random draw).
    """

    label_pages: int = 12_000
    negatives: int = 80
    spread_days: float = 90.0
    cohesion: float = 0.0


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
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from error
    except (msgspec.DecodeError, ConfigurationError) as error:
        raise ConfigurationError(f"{path}: {error}") from error


def save_parameters(path: Path, parameters: Parameters) -> None:
    """Write all values, defaults too: a row stays what it was when a default moves."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(asdict(parameters)), indent=1) + b"\n")


def parameters_of(document: dict[str, Any]) -> Parameters:
    """From nested mappings of any of the values; raises ConfigurationError as `load_parameters`."""
    return _changed(Parameters(), document, "")


def replaced(parameters: Parameters, values: dict[str, Any]) -> Parameters:
    """With other values, by dotted names such as retrieval.cooccurrence.backward; raises as `load_parameters`."""
    for name, value in values.items():
        document: Any = value
        for part in reversed(name.split(".")):
            document = {part: document}
        parameters = _changed(parameters, document, "")
    return parameters


def value_of(parameters: Parameters, name: str) -> Any:  # noqa: ANN401 - numbers and words
    """The value of a dotted name; raises AttributeError for one that is no parameter."""
    return attrgetter(name)(parameters)


def digest_of(document: Any) -> str:  # noqa: ANN401 - whatever JSON can say
    """A fingerprint of a JSON document, 16 hexadecimal digits."""
    return blake2b(msgspec.json.encode(document, order="deterministic"), digest_size=DIGEST_BYTES).hexdigest()


def _changed[T](held: T, given: object, where: str) -> T:
    """A dataclass with what `given` says of its fields, and theirs."""
    kinds = get_type_hints(type(held))
    if not isinstance(given, dict):
        raise ConfigurationError(f"{where or 'the document'} must be an object with some of {', '.join(sorted(kinds))}")
    values: dict[str, Any] = {}
    for name, value in given.items():
        path = f"{where}.{name}" if where else str(name)
        if name not in kinds:
            raise ConfigurationError(f"{path} is no parameter; there are {', '.join(sorted(kinds))}")
        current = getattr(held, name)
        if is_dataclass(current):
            values[name] = _changed(current, value, path)
            continue
        try:
            values[name] = msgspec.convert(value, kinds[name])
        except msgspec.ValidationError as error:
            raise ConfigurationError(f"{path} must be like {current!r}, not {value!r}: {error}") from error
    return replace(held, **values)  # type: ignore[type-var] # a dataclass, whose fields have just been read
