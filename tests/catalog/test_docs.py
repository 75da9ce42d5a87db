"""What docs/catalog.md says is so."""

import re
from pathlib import Path
from typing import get_args

from catalog.records import Action

TEXT = (Path(__file__).parents[2] / "docs" / "catalog.md").read_text("utf-8")


def test_the_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    exec(compile(example, "docs/catalog.md", "exec"), {})


def test_every_action_of_the_change_log_is_described() -> None:
    table = TEXT.partition("## The change log")[2].partition("## Migrations")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(get_args(Action))
