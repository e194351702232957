"""Records of Parquet files: a row each, nested columns as objects and lists.

Columns that no form has are not read: images beside the texts cost nothing. Numbers, texts and
what is nested of them is taken; a row that holds anything else there is refused.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from ztom.errors import StimuliError
from ztom.io.text import Place
from ztom.stimuli.json_values import check_value
from ztom.stimuli.left_out import LeftOutCounter
from ztom.stimuli.text_files import MAX_FILE_BYTES, check_file

#: Every Parquet file begins and ends so.
MAGIC = b"PAR1"
_BATCH_ROWS = 1024


def read_parquet(
    path: Path, *, columns: Collection[str], counter: LeftOutCounter
) -> list[tuple[Place, object]]:
    """The rows of a file.

    Args:
        path: Path of the file.
        columns: Names of the columns to read where the file has them.
        counter: Counter of the columns that are left out.

    Raises:
        StimuliError: It is no Parquet file, has none of the columns or no row, or is larger than 1
            GiB when unpacked.
    """
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    check_file(path)
    try:
        with ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            wanted = [name for name in names if name in columns]
            if not wanted or not file.metadata.num_rows:
                raise Place(path, 1, unit="row").error(
                    "there is nothing to read",
                    got=f"{file.metadata.num_rows} rows, the columns {', '.join(names)[:200]}",
                    expected=f"rows, and columns out of {', '.join(columns)}",
                )
            rows = _rows(path, file, wanted)
    except (ArrowException, OSError, ValueError) as error:
        if isinstance(error, StimuliError):
            raise
        raise StimuliError(
            f"{path} is no Parquet file that can be read", got=type(error).__name__
        ) from error
    for place, _ in rows:
        counter.add_fields((name for name in names if name not in columns), place)
    return rows


def _rows(path: Path, file: Any, columns: list[str]) -> list[tuple[Place, object]]:
    rows: list[tuple[Place, object]] = []
    nbytes = 0
    for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=columns):
        nbytes += batch.nbytes
        if nbytes > MAX_FILE_BYTES:
            raise StimuliError(
                f"{path} is too large when unpacked", expected=f"at most {MAX_FILE_BYTES} bytes"
            )
        for row in batch.to_pylist():
            place = Place(path, len(rows) + 1, unit="row")
            check_value(row, place=place)
            rows.append((place, row))
    return rows
