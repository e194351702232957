"""The card of a variant on the Hub: metadata that the Hub reads, its own card, how to use it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ztom.checkpoints.storage import open_source
from ztom.errors import ConfigError, ZtomError
from ztom.io.hub_address import is_bare_repo, read_hub_address
from ztom.io.yaml import parse_yaml
from ztom.settings import Settings
from ztom.variants.manifest import CARD
from ztom.variants.recipe import Recipe, SearchEvidence

#: Task by what the class in ``architectures`` ends with; the first that fits.
_TASKS = (
    ("ForCausalLM", "text-generation"),
    ("LMHeadModel", "text-generation"),
    ("ForSequenceClassification", "text-classification"),
    ("ForTokenClassification", "token-classification"),
    ("ForQuestionAnswering", "question-answering"),
    ("ForImageClassification", "image-classification"),
    ("ForConditionalGeneration", "image-text-to-text"),
    ("ForMaskedLM", "fill-mask"),
)
_LICENSES = (
    ("apache license version 2.0", "apache-2.0"),
    ("permission is hereby granted, free of charge", "mit"),
    ("redistribution and use in source and binary forms", "bsd-3-clause"),
)
_LICENSE_FILE = re.compile(r"(licen[sc]e|copying)(\.\w+)?", re.IGNORECASE)
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)
_MOST_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class CardFacts:
    """What stands in a card's head.

    Attributes:
        base_models: Names on the Hub of the checkpoints that were blended, base first.
        license: Identifier of the licence; None where it is not known.
        license_link: File with the licence, where the identifier says only that there is one.
        task: Task of the model as the Hub calls it; None where it is not known.
    """

    base_models: tuple[str, ...]
    license: str | None
    license_link: str | None
    task: str | None


def gather_facts(
    folder: Path, recipe: Recipe, *, base_model: str | None = None, license: str | None = None
) -> CardFacts:
    """Find what a card says beside the recipe.

    Args:
        folder: Folder of the variant.
        recipe: Recipe of the variant.
        base_model: Name on the Hub of what was blended; what the recipe says when None.
        license: Identifier of the licence; what the variant's files, or its latest checkpoint, say
            when None.

    Raises:
        ConfigError: The base model is no name on the Hub.
    """
    if base_model is not None and not is_bare_repo(base_model):
        raise ConfigError("--base-model is no name on the Hub", got=base_model, expected="org/name")
    config = _read_json(folder / "config.json")
    bases = (base_model,) if base_model else _hub_names(recipe, folder)
    named, link = (license, None) if license else _license_of(folder, recipe)
    return CardFacts(bases, named, link, _task(folder, config))


def render_hub_card(folder: Path, recipe: Recipe, repo: str, facts: CardFacts) -> str:
    """README.md of the repository.

    Args:
        folder: Folder of the variant.
        recipe: Recipe of the variant.
        repo: Repository, ``org/name``.
        facts: Facts of the head.
    """
    from huggingface_hub import ModelCardData

    # a relation without the model it relates to says nothing
    relation = "adapter" if recipe.form == "adapter" else "merge"
    related: dict[str, Any] = {"base_model_relation": relation} if facts.base_models else {}
    data = ModelCardData(
        base_model=list(facts.base_models) or None,
        library_name=_library(folder, recipe),
        license=facts.license,
        license_link=facts.license_link,
        pipeline_tag=facts.task,
        tags=["merge", "ztom"],
        **_results(recipe.evidence, repo, facts.task),
        **related,
    )
    body = _FRONT.sub("", (folder / CARD).read_text(encoding="utf-8"))
    return f"---\n{data.to_yaml()}\n---\n{body.rstrip()}\n\n{_usage(folder, recipe, repo, facts)}"


def _results(evidence: SearchEvidence | None, repo: str, task: str | None) -> dict[str, Any]:
    """The model-index: errors on the holdout, as the proof measured them."""
    from huggingface_hub import EvalResult

    if evidence is None:
        return {}
    name = " + ".join(str(term.get("function", "error")) for term in evidence.error)
    improvement = evidence.verdict["improvement"]
    trained, blended = evidence.holdout_errors
    values = (
        (f"{name} (error, lower is better)", blended),
        (f"{name} of the trained model", trained),
        (f"improvement at {improvement['confidence']:.0%}: {improvement['low']:.4g} to "
         f"{improvement['high']:.4g}, {evidence.verdict['outcome']}", improvement["estimate"]),
    )  # fmt: skip
    results = [
        EvalResult(
            task_type=task or "other",
            dataset_type="holdout",
            dataset_name=f"holdout of the search {evidence.study}",
            dataset_revision=evidence.data_digests.get("holdout"),
            metric_type=name,
            metric_name=label,
            metric_value=round(float(value), 6),
        )
        for label, value in values
    ]
    return {"model_name": repo.partition("/")[2], "eval_results": results}


def _usage(folder: Path, recipe: Recipe, repo: str, facts: CardFacts) -> str:
    if recipe.form == "adapter":
        code = (
            "from peft import AutoPeftModelForCausalLM\n\n"
            f'model = AutoPeftModelForCausalLM.from_pretrained("{repo}")'
        )
    elif (folder / "modules.json").is_file():
        code = (
            "from sentence_transformers import SentenceTransformer\n\n"
            f'model = SentenceTransformer("{repo}")\nprint(model.encode(["A sentence."]).shape)'
        )
    else:
        task = f'"{facts.task}", ' if facts.task else ""
        code = f'from transformers import pipeline\n\nmodel = pipeline({task}model="{repo}")'
    return (
        f"## Use\n\n```python\n{code}\n```\n\nCheck that it is what was released, and serve it:\n\n"
        f"```sh\nztom verify hf://{repo} --share 0\nztom serve hf://{repo}\n```\n"
    )


def _library(folder: Path, recipe: Recipe) -> str:
    if recipe.form == "adapter":
        return "peft"
    is_sentences = (folder / "modules.json").is_file()
    return "sentence-transformers" if is_sentences else "transformers"


def _task(folder: Path, config: Mapping[str, Any]) -> str | None:
    if (folder / "modules.json").is_file():
        return "sentence-similarity"
    for name in config.get("architectures") or ():
        for ending, task in _TASKS:
            if str(name).endswith(ending):
                return task
    return None


def _hub_names(recipe: Recipe, folder: Path) -> tuple[str, ...]:
    """Names on the Hub that the recipe's references and an adapter's configuration hold."""
    addresses = [read_hub_address(member.reference) for member in recipe.members]
    names = [address.repo for address in addresses if address is not None]
    named = _read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    if not names and isinstance(named, str) and is_bare_repo(named) and not Path(named).exists():
        names = [named]
    return tuple(dict.fromkeys(names))


def _license_of(folder: Path, recipe: Recipe) -> tuple[str | None, str | None]:
    """Identifier, and the file to link to: of the kept licence, else of the latest's own card."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and _LICENSE_FILE.fullmatch(path.name):
            text = " ".join(path.read_text(encoding="utf-8", errors="replace").lower().split())
            text = text.replace(",", "") if "apache" in text else text
            known = [name for mark, name in _LICENSES if mark in text]
            return (known[0], None) if known else ("other", path.name)
    stated = _card_of_latest(recipe).get("license")
    return (stated, None) if isinstance(stated, str) else (None, None)


def _card_of_latest(recipe: Recipe) -> Mapping[str, Any]:
    """The head of the card of the checkpoint that factors of 0 give; empty where there is none."""
    try:
        reference = recipe.members[recipe.latest].reference
        source = open_source(reference, settings=Settings())
        if CARD not in source.names() or source.size(CARD) > _MOST_BYTES:
            return {}
        match = _FRONT.match(source.read(CARD).decode("utf-8", errors="replace"))
        head = parse_yaml(match[1], source=CARD, json_only=False) if match else None
    except ZtomError:
        return {}
    return head if isinstance(head, dict) else {}


def _read_json(path: Path) -> Mapping[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
