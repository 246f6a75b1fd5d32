"""The run folder of a verification: claims.json, config.yaml, environment.json, figures and report.html."""

import base64
import hashlib
import importlib.resources
import itertools
import math
import os
import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ruamel.yaml import YAML

from probem.experiments.claims.bibliography import LINKS, cited
from probem.experiments.claims.claim import NO_DATASET, Check, Claim
from probem.experiments.claims.readings import EQUALITY, GROUPS, NECESSITY, READINGS, SQUARE
from probem.experiments.outcomes.record import Outcome, Verification
from probem.runs.folders import ENVIRONMENT, versions, write_json

# The picture that the page opens with: k-means and restricted EM, iteration by iteration.
_LEAD = "B6"

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def write(verification: Verification, folder: Path) -> None:
    """Write everything that a run leaves behind into an existing folder."""
    environment = environment_of(verification)
    write_json(folder / "claims.json", claims_json(verification))
    write_json(folder / ENVIRONMENT, environment)
    resolved = verification.settings.model_dump() | {"claims": [claim.id for claim in verification.claims]}
    YAML().dump(resolved, folder / "config.yaml")
    (folder / "figures").mkdir()
    for name, drawing in verification.drawings.items():
        (folder / "figures" / f"{name}.png").write_bytes(drawing.png)
    (folder / "report.html").write_text(render(verification, environment), encoding="utf-8")


def environment_of(verification: Verification) -> dict[str, Any]:
    """Versions, machine, seed and time of a run."""
    import jax

    return {
        "versions": versions("jax", "jaxlib", "numpyro", "numpy", "scikit-learn", "scipy", "matplotlib"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "device": jax.default_backend(),
        "precision": "float64",
        "seed": verification.settings.seed,
        "started": verification.started.isoformat(timespec="seconds"),
        "seconds": round(verification.seconds, 1),
    }


def claims_json(verification: Verification) -> dict[str, Any]:
    """All checks, by claim and data set."""
    return {
        "interrupted": verification.interrupted,
        "checks": len(verification.checks),
        "failed": sum(not check.holds for check in verification.checks)
        + sum(outcome.error is not None for outcome in verification.outcomes),
        "claims": [
            {
                "id": claim.id,
                "title": claim.title,
                "statement": claim.statement,
                "formula": claim.formula,
                "source": claim.source,
                "datasets": [_outcome_json(outcome) for outcome in _outcomes(verification, claim)],
            }
            for claim in verification.claims
        ],
    }


def _outcome_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "dataset": outcome.dataset,
        "holds": outcome.holds,
        "error": outcome.error,
        "seconds": round(outcome.seconds, 3),
        "checks": [
            {
                "compared": check.compared,
                "residual": check.residual,
                "tolerance": check.tolerance,
                "holds": check.holds,
                "numbers": dict(check.numbers),
            }
            for check in outcome.checks
        ],
    }


def render(verification: Verification, environment: Mapping[str, Any]) -> str:
    """The report as one HTML page that asks for nothing from outside."""
    import jinja2

    files = importlib.resources.files(__name__.rpartition(".")[0])
    jinja = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    jinja.filters |= {"formula": formula, "prose": prose, "number": number, "count": count}
    template = jinja.from_string(files.joinpath("report.html.jinja").read_text(encoding="utf-8"))
    letters = {claim.id[0] for claim in verification.claims}
    lead = verification.drawings.get(_LEAD)
    script = files.joinpath("scene.js").read_text(encoding="utf-8") if lead and lead.scene else ""
    views = {claim.id: _view(verification, claim) for claim in verification.claims}
    verdicts = {name: view["holds"] for name, view in views.items()}
    return template.render(
        run=verification,
        began=f"{verification.started.day} {verification.started:%B %Y at %H:%M}",
        lead=_LEAD if lead else None,
        # In a script element nothing is escaped: what would end it is written otherwise.
        scene=_markup(lead.scene.replace("<", "\\u003c")) if script and lead else "",
        script=_markup(script),
        script_source=_source_of(script),
        answer=answer(verdicts),
        equality=EQUALITY,
        broken=[name for name in EQUALITY if verdicts.get(name) is False],
        necessary=verdicts.get(NECESSITY),
        square=[
            (row, [(title, [name for name in names if verdicts.get(name) is not None]) for title, names in cells])
            for row, cells in SQUARE
        ],
        columns=[dataset.name for dataset in verification.datasets]
        + [NO_DATASET] * any(outcome.dataset == NO_DATASET for outcome in verification.outcomes),
        groups=[(letter, *words) for letter, words in GROUPS.items() if letter in letters],
        readings=READINGS,
        environment=environment,
        style=_markup(files.joinpath("report.css").read_text(encoding="utf-8")),
        claims=views,
        links=LINKS,
        sources=cited(" ".join(claim.source for claim in verification.claims)),
    )


def _source_of(script: str) -> str:
    """What the page's policy says of scripts: this one, by its digest, and no other."""
    if not script:
        return "'none'"
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def answer(verdicts: Mapping[str, bool | None]) -> str:
    """What the page may say to its title: ``yes`` if all that the equality rests on was checked and holds, ``no`` if
    any of it fails, and ``open`` if it was not all checked. A claim that was not checked is None, or not there.
    """
    answers = [verdicts.get(name) for name in EQUALITY]
    if False in answers:
        return "no"
    return "open" if None in answers else "yes"


def _view(verification: Verification, claim: Claim) -> dict[str, Any]:
    """A claim as the template needs it."""
    outcomes = _outcomes(verification, claim)
    drawing = verification.drawings.get(claim.id)
    return {
        "claim": claim,
        "svg": _markup(drawing.svg) if drawing else None,
        "outcomes": {outcome.dataset: outcome for outcome in outcomes},
        "shown": _shown(outcomes),
        "checks": sum(len(outcome.checks) for outcome in outcomes),
        "holds": all(outcome.holds for outcome in outcomes) if outcomes else None,
    }


def _shown(outcomes: list[Outcome]) -> list[tuple[str, str | None, list[tuple[Outcome, Check | None]]]]:
    """What was compared, what was raised, and the data sets on which, neighbours that agree in both taken together.

    First what is exact on every data set, then what is measured.
    """
    rows: list[tuple[int, Outcome, Check | None]] = []
    for outcome in outcomes:
        checks = shown(outcome.checks)
        # What was raised is said once, beside the last of them.
        rows += [(int(check.tolerance > 0), outcome, check) for check in checks] or [(1, outcome, None)]
    rows.sort(key=lambda row: row[0])
    last = {outcome.dataset: place for place, (_, outcome, _) in enumerate(rows)}

    def said(numbered: tuple[int, tuple[int, Outcome, Check | None]]) -> tuple[str, str | None]:
        place, (_, outcome, check) = numbered
        return check.compared if check else "", outcome.error if last[outcome.dataset] == place else None

    groups = itertools.groupby(enumerate(rows), key=said)
    return [(*words, [(outcome, check) for _, (_, outcome, check) in same]) for words, same in groups]


def shown(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """Those to show for all: of the exact ones (tolerance 0), and of the others, the one nearest to failing."""
    exact = [check for check in checks if check.tolerance == 0]
    measured = [check for check in checks if check.tolerance > 0]
    return tuple(max(group, key=_nearness) for group in (exact, measured) if group)


def closest_call(outcomes: Sequence[Outcome]) -> Check | None:
    """Of all comparisons of some outcomes the one nearest to failing; None where nothing was compared."""
    return max((check for outcome in outcomes for check in outcome.checks), key=_nearness, default=None)


def _nearness(check: Check) -> float:
    """1 and more for a check that fails, the more the worse; else the part of its tolerance that it uses up."""
    if not check.holds:
        return math.inf if math.isnan(check.residual) else 1 + check.residual - check.tolerance
    return check.residual / check.tolerance if check.tolerance > 0 else 0.0


def _outcomes(verification: Verification, claim: Claim) -> list[Outcome]:
    return [outcome for outcome in verification.outcomes if outcome.claim.id == claim.id]


def _markup(text: str) -> Any:
    import markupsafe

    return markupsafe.Markup(text)


def formula(latex: str, display: str = "block") -> Any:
    r"""LaTeX as MathML, which browsers draw without any script; parts that ``\qquad`` sets apart may stand below one
    another.
    """
    parts = [_mathml(part.strip().strip(","), display) for part in re.split(r"\\qquad", latex)]
    if display == "inline":
        return _markup(" ".join(parts))
    # What a narrow page divides its width by.
    longest = max(_ems(ElementTree.fromstring(part)) for part in parts)
    spans = "".join(f"<span>{part}</span>" for part in parts)
    return _markup(f'<span class="parts" style="--ems: {longest:.1f}">{spans}</span>')


def _mathml(latex: str, display: str) -> str:
    import latex2mathml.converter

    # The converter knows arg max as one word only, and sets no space after log.
    latex = re.sub(r"\\arg(?:\\[,;!])?\s*\\(max|min)(?![a-zA-Z])", r"\\arg\1", latex)
    latex = re.sub(r"\\log(?=\s+[\w\\])", r"\\log\\,", latex)
    mathml = latex2mathml.converter.convert(latex, display=display)
    # The namespace is HTML's to know; and a norm would grow to the height of the sums beside it.
    mathml = mathml.replace(' xmlns="http://www.w3.org/1998/Math/MathML"', "")
    return mathml.replace("<mo>&#x02016;", '<mo stretchy="false">&#x02016;')


# Ems of letters; of operators with the space around them, and of those without any.
_LETTER, _OPERATOR, _TIGHT = 0.56, 1.25, 0.4


def _ems(element: ElementTree.Element) -> float:
    """How wide a formula is, in units of its letters, and a little more."""
    tag, text = element.tag.rpartition("}")[2], (element.text or "").strip()
    parts = [_ems(part) for part in element]
    if tag == "mo" and len(text) > 1:
        return _LETTER * len(text) + 0.4
    if tag == "mo":
        if text in "⟹⟶⟸⟵":
            return 2 * _OPERATOR
        return (_TIGHT if text in "()[]|{},.;′!∂‖" else _OPERATOR) * max(1, len(text))
    if tag in ("mi", "mn", "mtext"):
        return _LETTER * len(text or " ")
    if tag == "mspace":
        width = re.match(r"([0-9.]+)em", element.get("width", ""))
        return float(width.group(1)) if width else 0.3
    if tag == "mfrac":
        return max(parts) + 0.2
    if tag in ("munder", "mover", "munderover"):
        return max(parts[0], 0.72 * max(parts[1:]))
    if tag in ("msub", "msup"):
        return parts[0] + 0.72 * parts[1]
    if tag == "msubsup":
        return parts[0] + 0.72 * max(parts[1:])
    return sum(parts)


def prose(text: str) -> Any:
    """A sentence in which ``$...$`` is a formula."""
    import markupsafe

    parts = re.split(r"\$([^$]+)\$", text)
    return _markup("").join(
        formula(part, "inline") if index % 2 else markupsafe.escape(part) for index, part in enumerate(parts)
    )


def number(value: Any) -> str:
    """A number as print has it: ``3.2 × 10⁻¹³``, not ``3.2e-13``; anything else as it is."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if 1e-3 <= abs(value) < 1e9 or value == 0:
        decimals = 0 if value == int(value) else max(0, 4 - math.floor(math.log10(abs(value))))
        return f"{value:,.{min(decimals, 5)}f}".replace(",", "\u202f").replace("-", "−")
    mantissa, exponent = f"{value:.1e}".split("e")
    factor = "" if mantissa == "1.0" else f"{mantissa.removesuffix('.0')} × "
    return f"{factor}10{str(int(exponent)).translate(_SUPERSCRIPT)}".replace("-", "−")


def count(value: int, noun: str, several: str | None = None) -> str:
    """``1 comparison``, ``2 comparisons``."""
    return f"{number(value)} {noun if value == 1 else several or noun + 's'}"
