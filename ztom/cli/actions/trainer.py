"""What ``ztom chain`` does: a Trainer's folder becomes a chain's file."""

from __future__ import annotations

from pathlib import Path

from ztom.blending.chain_file import ChainConfig, trainer_chain
from ztom.blending.trainer_folder import is_trainer_folder, read_trainer_folder
from ztom.cli.console import plain_console, print_document
from ztom.errors import ChainError, ConfigError
from ztom.io.files import write_document
from ztom.io.yaml import dump_yaml


def chain_command(folder: Path, base: str | None, output: Path, *, as_json: bool = False) -> None:
    """Write the chain, and say what of the folder is not in it.

    Raises:
        ChainError: The folder is not a Trainer's, or gives no chain.
        ConfigError: The file is there already.
    """
    if output.exists():
        raise ConfigError(
            f"{output} is there already",
            fix="Name another file with --output, or move it away: it is not overwritten.",
        )
    if not is_trainer_folder(folder):
        raise ChainError(
            f"{folder} is not the output folder of a Trainer",
            got="a folder" if folder.is_dir() else "no folder",
            expected="folders checkpoint-N in it",
        )
    run = read_trainer_folder(folder, base=_reference(base))
    write_document(output, _yaml(trainer_chain(run), output.absolute().parent))
    if as_json:
        print_document(
            {
                "chain": output.absolute(),
                "checkpoints": [{"tag": tag, "reference": ref} for ref, tag in run.members],
                "left_out": dict(run.left_out),
                "has_base": run.has_base,
            }
        )
        return
    console = plain_console()
    console.print(f"{output}: {', '.join(tag for _, tag in run.members)}", soft_wrap=True)
    for path, reason in run.left_out.items():
        console.print(f"left out: {_name(folder, path)} ({reason})", soft_wrap=True)
    if not run.has_base:
        console.print(
            f"it begins with {run.members[0][1]}; --base adds the model that the training began "
            "from, and a factor for the first step",
            soft_wrap=True,
        )


def _reference(base: str | None) -> str | None:
    """A local folder by its whole path: the file may be written elsewhere."""
    if base is not None and Path(base).expanduser().exists():
        return str(Path(base).expanduser().absolute())
    return base


def _yaml(config: ChainConfig, folder: Path) -> str:
    """The chain's file; what lies below its own folder is named from there."""
    members = [
        {"tag": member.tag, "reference": _shortened(member.reference, folder)}
        for member in config.checkpoints
    ]
    return dump_yaml({"topology": config.topology, "checkpoints": members})


def _shortened(reference: str, folder: Path) -> str:
    path = Path(reference)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else reference


def _name(folder: Path, path: str) -> str:
    return str(folder) if path == "." else f"{folder}/{path}"
