"""Which assets somebody may see, as a value that becomes a condition inside SQL.

No identities here: whoever knows them (the server's policy) makes the filter. Because a listing
and the request for one asset apply the same condition, they can never disagree.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from catalog.schema import items


@dataclass(frozen=True, slots=True)
class AccessFilter:
    """The assets that are visible: all of them, or those named by id or by collection.

    Attributes:
        everything: no restriction; the other fields do not matter.
        ids: visible assets.
        collections: collections whose assets are all visible.
    """

    everything: bool = False
    ids: frozenset[str] = frozenset()
    collections: frozenset[str] = frozenset()

    def condition(self, table: sa.FromClause = items) -> sa.ColumnElement[bool]:
        """Return the condition on ``items``, or on ``published``."""
        if self.everything:
            return sa.true()
        # Sorted, so that equal filters give equal statements and share the compiled form.
        return sa.or_(
            table.c.id.in_(sorted(self.ids)),
            table.c.collection.in_(sorted(self.collections)),
        )


EVERYTHING = AccessFilter(everything=True)
NOTHING = AccessFilter()
