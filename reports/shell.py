"""What all pages share: the template environment, figures inside the page, scripts and the policy that guards them."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
import plotly.offline

from tuner.stability.remedies import told

__all__ = ["Plots", "content_policy", "page_scripts", "severity_word", "template"]

# Severity from which a finding is called so. Source: 0.9 is where a search refuses to start; the rest convention.
_SEVERITIES = ((0.9, "severe"), (0.6, "serious"), (0.3, "moderate"), (0.0, "minor"))

_TEMPLATES_DIR = Path(__file__).parent / "templates"


class Plots:
    """Collects the figures of a page as JSON that is safe inside a script element."""

    def __init__(self) -> None:
        self.sources: dict[str, str] = {}

    def add(self, name: str, figure: go.Figure) -> str:
        """Keep a figure under a name that is unique in the page, and return the name."""
        text = json.dumps(figure.to_plotly_json(), default=_plain_values, separators=(",", ":"), allow_nan=False)
        self.sources[name] = text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
        return name


def severity_word(severity: float) -> str:
    """A severity in one word."""
    return next((word for least, word in _SEVERITIES if severity >= least), "minor")


def template(name: str) -> jinja2.Template:
    """A template, with HTML escaped and names that are not given refused."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES_DIR),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["told"] = told
    return environment.get_template(name)


def page_scripts() -> dict[str, str]:
    """The two scripts of a page: plotly, and our own that draws the figures."""
    return {
        "plotly": plotly.offline.get_plotlyjs(),
        "page": (_TEMPLATES_DIR / "report.js").read_text(encoding="utf-8"),
    }


def content_policy(scripts: Iterable[str]) -> str:
    """A policy under which the page can load nothing, and runs its own two scripts and no other."""
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    rest = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {rest}"


def _plain_values(value: Any) -> Any:
    """What JSON does not know: arrays and numbers of NumPy."""
    return value.tolist()
