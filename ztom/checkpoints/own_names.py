"""How the tensors that a checkpoint stores become those of a model, by transformers' own rules.

A model does not have to store its tensors as it holds them: experts are stored one by one and held
stacked, nested models were renamed between versions, and a prefix such as ``model.`` or
``transformer.`` is added or taken away. transformers knows all that as a list of renamings and
conversions; it is applied here to names alone, on a model without numbers, and to tensors where
they are given. Nothing is loaded from a folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    dot_natural_key,
    rename_source_key,
)

from ztom.checkpoints.config_checks import check_counts
from ztom.checkpoints.config_meaning import family_of
from ztom.checkpoints.derived import is_derived
from ztom.checkpoints.tensors import TensorSpec
from ztom.errors import CheckpointError

#: More layers than any model has: each would be made.
_MOST_LAYERS = 4096
_IGNORED = "_keys_to_ignore_on_load_unexpected"


@dataclass(frozen=True)
class TensorGroup:
    """Stored tensors that make one tensor of a model, or several.

    Attributes:
        own: Name in the model of the first tensor that they make.
        sources: Name of each stored tensor, and the pattern of the conversion that it matches.
        converter: transformers' conversion; None where a tensor is taken as it is.
    """

    own: str
    sources: tuple[tuple[str, str], ...]
    converter: Any = None

    @property
    def stored(self) -> tuple[str, ...]:
        """Names of the stored tensors, in the order of the conversion."""
        return tuple(name for name, _ in self.sources)


@dataclass(frozen=True)
class Arrangement:
    """What becomes of the tensors of one checkpoint.

    Attributes:
        groups: Groups of tensors that have a place in the model.
        unexpected: Names that have none, sorted.
    """

    groups: tuple[TensorGroup, ...]
    unexpected: tuple[str, ...]


class OwnNames:
    """The names that a model has for its tensors.

    Args:
        model: A model of transformers; it may be on the meta device.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.state: dict[str, torch.Tensor] = model.state_dict()
        patterns = getattr(model, _IGNORED, None) or ()
        #: Names that the model's class leaves out when it loads.
        self.ignored = re.compile("|".join(f"(?:{p})" for p in sorted(patterns)) or r"(?!)")

    def arrange(self, names: Iterable[str]) -> Arrangement:
        """Sort the names of stored tensors by what they become.

        Raises:
            CheckpointError: Two tensors are one and the same of the model.
        """
        rules = get_model_conversion_mapping(self.model)
        renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        by_pattern = {p: converter for converter in converters for p in converter.source_patterns}
        prefix = self.model.base_model_prefix
        sources: dict[str, list[tuple[str, str]]] = {}
        patterns: dict[str, str | None] = {}
        unexpected = []
        for name in sorted(names, key=dot_natural_key):
            own, pattern = rename_source_key(name, renamings, converters, prefix, self.state)
            if own not in self.state and name in self.state:
                own, pattern = rename_source_key(name, [], [], prefix, self.state)
            if own not in self.state:
                unexpected.append(name)
                continue
            if pattern is None and own in sources:
                raise CheckpointError(
                    "two tensors are one of the model's",
                    got=f"{sources[own][0][0]} and {name}, both {own}",
                    fix="Save the model again with transformers.",
                )
            sources.setdefault(own, []).append((name, pattern or name))
            patterns.setdefault(own, pattern)
        groups = [
            TensorGroup(own, tuple(names), by_pattern[pattern] if pattern else None)
            for own, names in sources.items()
            for pattern in [patterns[own]]
        ]
        return Arrangement(tuple(groups), tuple(unexpected))

    def fits(self, tensors: Mapping[str, TensorSpec]) -> bool:
        """Whether every tensor has a place, those apart that the model computes or leaves out."""
        unexpected = [
            name
            for name in self.arrange(tensors).unexpected
            if not is_derived(name, tensors[name].shape) and not self.ignored.search(name)
        ]
        return not unexpected

    def convert(
        self, group: TensorGroup, tensors: Mapping[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        """The model's tensors by their own names.

        Args:
            group: Group of an arrangement of this model.
            tensors: Stored tensors by name, all those of the group.
        """
        if group.converter is None:
            return {group.own: tensors[group.stored[0]]}
        converter = deepcopy(group.converter)
        for name, pattern in group.sources:
            converter.add_tensor(group.own, name, pattern, tensors[name])
        made = converter.convert(group.own, model=self.model, config=self.model.config)
        return {
            own: tensor[0] if isinstance(tensor, list) else tensor for own, tensor in made.items()
        }


def model_of(config: Mapping[str, Any]) -> Any | None:
    """The model that a configuration describes, on the meta device; None where nobody knows it.

    Args:
        config: Content of ``config.json``.

    Raises:
        CheckpointError: It asks for more layers than any model has, or cannot be read.
    """
    family = family_of(config)
    if family is None:
        return None
    check_counts("the model", config, layers=_MOST_LAYERS)
    try:
        parsed = family.from_dict(dict(config))
        model_class = model_class_of(parsed)
        if model_class is None:
            return None
        with torch.device("meta"):
            if hasattr(model_class, "from_config"):
                return model_class.from_config(parsed)
            return model_class(parsed)
    except Exception as error:  # transformers raises whatever its parsers raise
        raise CheckpointError(
            "the model that config.json describes cannot be made",
            got=f"{type(error).__name__}: {error}",
            fix="Give the config.json that belongs to the weights.",
        ) from error


def model_class_of(config: Any) -> Any | None:
    """The class that ``architectures`` names, a language model's without any; None if unknown."""
    names = list(config.architectures or ())
    if not names:
        return transformers.AutoModelForCausalLM
    return class_named(names[0])


def class_named(name: object) -> Any | None:
    """The class of transformers with a name; None without one, or where it cannot be had here."""
    try:
        shipped = getattr(transformers, name, None) if isinstance(name, str) else None
    except (ImportError, RuntimeError):  # a library that the class needs is not installed
        return None
    return shipped if isinstance(shipped, type) else None
