"""The model card of a variant: what it is, where it comes from, and what it scored."""

from __future__ import annotations

from ztom.blending.precision import PrecisionReport
from ztom.checkpoints.reference import is_address
from ztom.variants.recipe import Recipe, SearchEvidence, step_names


def render_card(recipe: Recipe, precision: PrecisionReport) -> str:
    """Markdown with the metadata block that model hubs read."""
    lines = [
        "---",
        "library_name: " + ("peft" if recipe.form == "adapter" else "transformers"),
        "tags:",
        "- merge",
        "- ztom",
        "---",
        "",
        *_advice(recipe.evidence),
        "# A mastered variant",
        "",
        f"A blend of {len(recipe.members)} checkpoints ({recipe.topology}), written by Z-TOM from "
        "the recipe in `recipe.json`. Nothing was trained for it.",
        "",
        *_checkpoints(recipe),
        "",
        *_factors(recipe),
        "",
    ]
    if precision.overall.realised is not None:
        lines += [
            f"Realised over intended step at dtype `{recipe.dtype}`: "
            f"{precision.overall.realised:.1%} ({precision.overall.changed:.1%} of the weights "
            "changed).",
            "",
        ]
        lines += [f"**Warning:** {warning}." for warning in precision.warnings]
    lines += _left_out(recipe)
    lines += [f"- {_cell(note)}" for note in recipe.notes] + [""] * bool(recipe.notes)
    lines += _evidence(recipe.evidence)
    return "\n".join(lines) + "\n"


def _checkpoints(recipe: Recipe) -> list[str]:
    """The rows of the members; with groups a coefficient is one of several, and not shown."""
    coefficients = (
        [f" {value:+.6g} |" for value in recipe.coefficients]
        if recipe.groups is None
        else [""] * len(recipe.members)
    )
    columns = ("", "") if recipe.groups else (" coefficient |", " ---: |")
    lines = [f"| checkpoint | sha256 |{columns[0]}", f"| --- | --- |{columns[1]}"]
    for member, coefficient in zip(recipe.members, coefficients, strict=True):
        place = f" `{member.reference}`" if is_address(member.reference) else ""
        lines.append(f"| {_cell(member.tag)}{place} | `{member.sha256[:16]}` |{coefficient}")
    return lines


def _factors(recipe: Recipe) -> list[str]:
    if recipe.groups is None:
        factors = ", ".join(f"{factor:+.6g}" for factor in recipe.factors)
        return [f"Scaling factors, one per transition: {factors}."]
    names = recipe.groups.names
    lines = [
        f"Scaling factors, one per transition and group of tensors ({recipe.groups.digest[:16]}):",
        "",
        f"| transition | {' | '.join(map(_cell, names))} |",
        f"| --- |{' ---: |' * len(names)}",
    ]
    for at, step in enumerate(step_names(recipe)):
        row = recipe.factors[at * len(names) : (at + 1) * len(names)]
        lines.append(f"| {_cell(step)} | {' | '.join(f'{factor:+.6g}' for factor in row)} |")
    return lines


def _left_out(recipe: Recipe) -> list[str]:
    if not recipe.left_out:
        return []
    named = "; ".join(f"`{_cell(path)}` ({why})" for path, why in recipe.left_out.items())
    return [f"Files of the latest checkpoint that are not here: {named}.", ""]


def _advice(evidence: SearchEvidence | None) -> list[str]:
    """What to know before anything else, where a checkpoint alone is better."""
    best = None if evidence is None else evidence.best_existing
    return [f"**{_cell(best['advice'])}**", ""] if best and best["advice"] else []


def _best_existing(evidence: SearchEvidence) -> list[str]:
    best = evidence.best_existing
    if best is None or best["outcome"] is None:
        return []
    return [
        f"The best checkpoint of the chain on the search set is {_cell(best['name'])}, with "
        f"{best['search_error']:.6g} there and {best['holdout_error']:.6g} on the holdout. Beside "
        f"it this variant is **{best['outcome']}**: {_cell(best['reason'])}.",
        "",
    ]


def _evidence(evidence: SearchEvidence | None) -> list[str]:
    if evidence is None:
        return ["The factors were set by hand; no search and no proof stand behind them."]
    improvement = evidence.verdict["improvement"]
    lines = [
        "## Scores",
        "",
        "| error (lower is better) | trained model | this variant |",
        "| --- | ---: | ---: |",
        f"| search set | {evidence.search_errors[0]:.6g} | {evidence.search_errors[1]:.6g} |",
        f"| holdout | {evidence.holdout_errors[0]:.6g} | {evidence.holdout_errors[1]:.6g} |",
        "",
        f"Verdict: **{evidence.verdict['outcome']}**. Improvement on the holdout "
        f"{improvement['estimate']:.4g}, {improvement['confidence']:.0%} interval "
        f"{improvement['low']:.4g} to {improvement['high']:.4g} "
        f"({improvement['groups']} independent groups).",
        "",
        *[f"- {_cell(reason)}" for reason in evidence.verdict["reasons"]],
        "",
    ]
    lines += _best_existing(evidence)
    if evidence.gate is not None:
        suites = ", ".join(_cell(name) for name in evidence.gate["suites"])
        lines += [f"Gate on the suites {suites}: **{evidence.gate['outcome']}**.", ""]
    if evidence.insisted:
        lines += ["**Released on insistence**: the proof did not ask for it.", ""]
    return lines


def _cell(text: str) -> str:
    """Text that stays in its table cell."""
    return text.replace("|", "\\|").replace("\n", " ")
