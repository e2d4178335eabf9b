"""The changelog speaks of the version that setup.cfg names."""

from __future__ import annotations

import re
from configparser import ConfigParser
from pathlib import Path


def test_version_has_a_section_with_entries(root: Path, setup_cfg: ConfigParser) -> None:
    version = setup_cfg["metadata"]["version"]
    sections = re.split(r"^## ", (root / "CHANGELOG.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    entries = {re.split(r"[\s\]]", section.lstrip("["))[0]: section for section in sections}
    assert version in entries, f"CHANGELOG.md has sections {list(entries)}, none for {version}"
    assert re.search(r"^- \S", entries[version], flags=re.MULTILINE), f"section {version} of CHANGELOG.md is empty"
