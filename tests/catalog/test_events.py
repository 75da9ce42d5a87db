"""The change log is append-only and tells the whole story."""

from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from catalog.database import Catalog
from catalog.engine import writing
from catalog.events import Followed, replay
from catalog.records import Change, standard_collections
from tests.catalog.conftest import NewDatabase, item, new_version, store, ticking
from tiling.errors import CatalogError

steps = st.lists(
    st.tuples(
        st.sampled_from(["publish", "publish", "publish", "update", "rollback", "delete"]),
        st.sampled_from(["甲", "乙", "丙"]),
        st.integers(0, 9),
    ),
    max_size=25,
)


def apply(catalog: Catalog, action: str, item_id: str, n: int) -> None:
    exists = item_id in {i.id for i in catalog.items()}
    said = item(item_id, title=f"标题{n}", properties={"n": n})
    if action == "publish":
        stores = (store(f"assets/{n}.3tz", str(n)), store("assets/base.3tz"))
        catalog.publish(said, new_version(*stores, tombstones=(f"{n}.glb",), job=f"j{n}"))
    elif exists and action == "update":
        catalog.update(said)
    elif exists and action == "rollback":
        numbers = [v.number for v in catalog.versions(item_id)]
        catalog.rollback(item_id, numbers[n % len(numbers)])
    elif exists and action == "delete":
        catalog.delete(item_id)


def state(catalog: Catalog) -> dict[str, Followed]:
    return {
        found.id: Followed(found, {v.number: v for v in catalog.versions(found.id)})
        for found in catalog.items()
    }


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)
@given(steps, st.integers(1, 7))
def test_replaying_the_log_gives_the_catalogue(
    new_database: NewDatabase, story: list[tuple[str, str, int]], page: int
) -> None:
    with Catalog.open(new_database(), clock=ticking()) as catalog:
        catalog.ensure_collections(standard_collections())
        for step in story:
            apply(catalog, *step)
        followed: dict[str, Followed] = {}
        seen = 0
        while entries := catalog.changes(after=seen, limit=page):
            assert [c.seq for c in entries] == list(range(seen + 1, seen + 1 + len(entries)))
            replay(entries, followed)
            seen = entries[-1].seq
        assert seen == catalog.sequence()
        assert followed == state(catalog)


def test_a_log_with_a_hole_is_noticed(catalog: Catalog) -> None:
    catalog.publish(item(), new_version())
    catalog.publish(item(), new_version())
    catalog.rollback("guanggu", 1)
    create, first, second, back = catalog.changes()
    for broken in ([first], [create, second, back], [create, replace(first, version=None)]):
        with pytest.raises(CatalogError, match="change"):
            replay(broken)


def test_each_change_says_what_it_did(catalog: Catalog) -> None:
    catalog.publish(item(), new_version())
    catalog.publish(item(), new_version(store("assets/b.3tz", "b")))
    catalog.rollback("guanggu", 1)
    catalog.update(item(title="新"))
    catalog.delete("guanggu")
    log = catalog.changes()
    assert [(c.seq, c.action, c.version) for c in log] == [
        (1, "create", None),
        (2, "publish", 1),
        (3, "publish", 2),
        (4, "rollback", 1),
        (5, "update", None),
        (6, "delete", None),
    ]
    assert log[3].detail == {"from": 2}
    assert log[5].detail["versions"] == [1, 2]
    assert [s["path"] for s in log[5].detail["stores"]] == ["assets/a.3tz", "assets/b.3tz"]
    assert [c.time for c in log] == sorted(c.time for c in log)
    assert isinstance(log[0], Change)


@pytest.mark.parametrize("statement", ["DELETE FROM changes", "UPDATE changes SET item_id = 'x'"])
def test_the_database_refuses_to_rewrite_the_log(catalog: Catalog, statement: str) -> None:
    catalog.publish(item(), new_version())
    with pytest.raises(CatalogError, match="append-only"), writing(catalog._engine) as connection:
        connection.execute(sa.text(statement))
    assert len(catalog.changes()) == 2
