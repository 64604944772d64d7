"""Documents of a Hugging Face dataset, to train language models on: `text.split(hub.documents("user/name"))`."""

from __future__ import annotations

from itertools import islice

from workbench.errors import DataError, ParameterError, suggest


def documents(
    path: str, config: str | None = None, *, split: str = "train", column: str = "text", limit: int = 0
) -> tuple[str, ...]:
    """One column of a dataset, empty texts left out; row by row, so that `limit` documents need no whole download.

    path, config, split: see `datasets.load_dataset`, which reads names on the hub and folders of files. limit: most
    documents, 0 for all.

    ParameterError without the package `datasets`, DataError for a dataset that cannot be read or has no such column.

    >>> corpus = text.split(hub.documents("wikimedia/wikipedia", "20231101.en", limit=10_000))
    """
    try:
        from datasets import load_dataset
    except ImportError as e:
        raise ParameterError("datasets of Hugging Face need their package: pip install datasets") from e
    try:
        rows = load_dataset(path, config, split=split, streaming=True)
        found = []
        for row in islice(rows, limit or None):
            if not isinstance(row.get(column), str):
                hint = suggest(column, list(row))
                raise DataError(f"{path} has no column {column!r} of texts; it has {', '.join(row)}{hint}")
            found += [row[column]] if row[column].strip() else []
    except DataError:
        raise
    except Exception as e:  # files, networks and names each have errors of their own
        raise DataError(f"dataset {path!r} could not be read ({type(e).__name__}: {e})") from e
    if not found:
        raise DataError(f"dataset {path!r} has no text in {split!r}")
    return tuple(found)
