"""Which checkpoint of a chain each file of a blend comes from, the weights and the config apart.

They are the latest one's. An adapter's folder has few: what it lacks comes from the base, but for
the tokenizer, which is one thing in several files and comes from one of the two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path

from ztom.blending.chain import Chain
from ztom.checkpoints.checkpoint import Checkpoint
from ztom.checkpoints.layout import ADAPTER_CONFIG, CONFIG
from ztom.checkpoints.tokenizer_meaning import TOKENIZER_FILES

#: What says how the files of a tokenizer are read: without it they may be read otherwise.
_TOKENIZER_CONFIG = "tokenizer_config.json"


def files_of_blend(chain: Chain) -> Mapping[str, Checkpoint]:
    """The checkpoint that each file of a blend in full weights is copied from.

    Args:
        chain: Chain that was opened and checked.
    """
    latest, model = chain.reference, chain.members[chain.model]
    files = {}
    if latest is not model:
        has_own = latest.tokenizer_digest is not None
        files = {name: model for name in model.files if not (has_own and _is_of_tokenizer(name))}
    files |= dict.fromkeys(latest.files, latest)
    left = {CONFIG, *({ADAPTER_CONFIG} if latest is not model else ())}
    return {
        name: source
        for name, source in sorted(files.items())
        if name not in left and not name.endswith(".index.json")
    }


@contextmanager
def tokenizer_folder(chain: Chain | None, folder: Path) -> Iterator[Path]:
    """A folder with the tokenizer of a chain's blends, for as long as it takes to load it.

    Args:
        chain: Chain that was opened; None for one fixed model.
        folder: Folder of the model that an engine starts from.
    """
    if chain is None or chain.reference.kind == "full" or chain.reference.tokenizer_digest is None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="ztom-tokenizer-") as copies:
        for name, source in files_of_blend(chain).items():
            (Path(copies) / name).write_bytes(source.source.read(name))
        (Path(copies) / CONFIG).write_bytes(chain.base.source.read(CONFIG))
        yield Path(copies)


def _is_of_tokenizer(name: str) -> bool:
    if name == _TOKENIZER_CONFIG:
        return False
    return any(fnmatchcase(name, p) for p in (*TOKENIZER_FILES, "chat_template*"))
