"""Features known by a column of their own: the same feature keeps its id from version to version.

An id is a whole number below 2**53, which every client can hold: the key itself where keys are
such numbers, otherwise 53 bits of a hash of its text.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ingest.prepare import Prepared
from tiling.batches import FeatureBatch
from tiling.errors import FieldInvalid

ID_LIMIT = 2**53
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Identify:
    """Gives features the ids of their keys; picklable.

    Attributes:
        column: holds the keys; whole numbers or text, never null, each once.
        source: for messages.
    """

    column: str
    source: str

    def __call__(self, batch: FeatureBatch) -> FeatureBatch:
        """Return the batch with ids made from its keys.

        Raises:
            FieldInvalid: a key is null, or the column holds neither whole numbers nor text.
        """
        keys = batch.attributes.column(self.column)
        if keys.null_count:
            row = int(np.flatnonzero(~np.asarray(keys.is_valid().to_numpy()))[0])
            raise FieldInvalid(
                f"{keys.null_count} features have no key in {self.column!r}, the first being "
                f"feature {int(batch.ids[row])}",
                source=self.source,
                remedy="give every feature a key, or choose another column with --key",
            )
        return replace(batch, ids=self.ids(keys))

    def ids(self, keys: pa.ChunkedArray) -> NDArray[np.int64]:
        """Return the (N,) ids of N keys.

        Raises:
            FieldInvalid: the keys are neither whole numbers nor text.
        """
        if pa.types.is_floating(keys.type) or pa.types.is_decimal(keys.type):
            keys = self._whole(keys)
        if pa.types.is_integer(keys.type):
            numbers = np.asarray(keys.cast(pa.int64()).to_numpy())
            if ((numbers < 0) | (numbers >= ID_LIMIT)).any():
                return self.ids(keys.cast(pa.string()))
            return numbers
        if not (pa.types.is_string(keys.type) or pa.types.is_large_string(keys.type)):
            raise FieldInvalid(
                f"column {self.column!r} is {keys.type}: keys are whole numbers or text",
                source=self.source,
                remedy="choose another column with --key",
            )
        digests = [
            hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
            for key in keys.to_pylist()
        ]
        hashed = np.frombuffer(b"".join(digests), dtype="<u8")
        return (hashed >> np.uint64(11)).astype(np.int64)

    def _whole(self, keys: pa.ChunkedArray) -> pa.ChunkedArray:
        try:
            return keys.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise FieldInvalid(
                f"column {self.column!r} holds numbers that are not whole: {error}",
                source=self.source,
                remedy="choose another column with --key",
            ) from error

    def check_unique(self, prepared: Prepared) -> None:
        """Check that no two features share an id.

        Raises:
            FieldInvalid: a key occurs twice.
        """
        every, counts = np.unique(prepared.spool.ids(), return_counts=True)
        repeated = every[counts > 1]
        if len(repeated):
            raise FieldInvalid(
                f"{len(repeated)} keys in {self.column!r} belong to more than one feature: "
                + ", ".join(self._some(prepared, repeated)),
                source=self.source,
                remedy="make the keys unique, or choose another column with --key",
            )

    def _some(self, prepared: Prepared, ids: NDArray[np.int64]) -> list[str]:
        found: dict[str, None] = {}
        for batch in prepared.batches():
            rows = np.flatnonzero(np.isin(batch.ids, ids))
            found.update(dict.fromkeys(self.texts(batch.attributes.column(self.column).take(rows))))
            if len(found) >= _SHOWN:
                break
        return list(found)[:_SHOWN]

    def texts(self, keys: pa.ChunkedArray) -> list[str]:
        """Return keys as text, for messages."""
        return [str(key) for key in pc.cast(keys, pa.string()).to_pylist()]
