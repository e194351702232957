"""Files of data sets elsewhere: in a store, ``gs://bucket/file``, or on the Hugging Face Hub,
``hf://datasets/org/name[@revision]/file``.
"""

from __future__ import annotations

from pathlib import Path

from ztom.errors import StimuliError
from ztom.io.hub_address import read_hub_address
from ztom.io.places import is_store_address

HUB_PREFIX = "hf://"


def local_file(reference: Path | str) -> Path:
    """The file itself: a path as it is, a file of a store or of the Hub after it was fetched.

    Args:
        reference: Path, or address that begins with ``gs://``, ``s3://`` or ``hf://``.

    Raises:
        StimuliError: It is an address of the Hub, but none of a file of a data set.
        StorageError: There is no such file, or the store or the Hub cannot be reached.
    """
    text = str(reference)
    if is_store_address(text):
        from ztom.io.store_fetch import here  # it imports fsspec

        return here(text)
    if not text.startswith(HUB_PREFIX):
        return Path(reference)
    address = read_hub_address(text)
    if address is None or address.kind != "dataset":
        raise StimuliError(
            "the address is none of a data set on the Hub",
            got=text,
            expected=f"{HUB_PREFIX}datasets/org/name[@revision]/file",
        )
    # huggingface_hub is imported only where it is needed.
    from ztom.io.hub import fetch_hub_file

    return fetch_hub_file(address).path
