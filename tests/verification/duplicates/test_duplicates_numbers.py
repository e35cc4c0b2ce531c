"""Numbers for keys, senders and transactions do not depend on how records are batched."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cdc_platform.verification.continuity.transaction_counts import count_transactions
from cdc_platform.verification.duplicates.deliveries import (
    DELIVERY,
    RUN_HEADER,
    SHARD_HEADER,
    WORKER_HEADER,
    TaskRuns,
    key_words,
)

_KEYS = st.lists(st.binary(max_size=40) | st.binary(min_size=250, max_size=300), min_size=1, max_size=30)


@settings(max_examples=300, deadline=None)
@given(_KEYS)
def test_duplicates_a_key_has_one_number_in_every_batch(keys: list[bytes]) -> None:
    together = key_words(keys).tolist()
    assert together == [int(key_words([key])[0]) for key in keys]
    assert len(set(together)) == len(set(keys))


_HEADERS = st.lists(
    st.sampled_from(["pins.1", "pins.2"]).flatmap(
        lambda shard: st.permutations(
            [(SHARD_HEADER, shard.encode()), (RUN_HEADER, b"r1"), (WORKER_HEADER, b"w0"), ("other", b"x")]
        )
    )
    | st.just([(RUN_HEADER, b"r1")])
    | st.just([]),
    max_size=20,
)


@settings(max_examples=300, deadline=None)
@given(_HEADERS)
def test_duplicates_a_sender_has_one_number_wherever_its_headers_stand(
    headers: list[list[tuple[str, bytes]]],
) -> None:
    runs = TaskRuns()
    keys = [b'{"id":1,"shard":"9"}'] * len(headers)
    found = runs.codes(headers, keys) if headers else []
    again = [runs.codes([own], [b'{"id":1,"shard":"9"}'])[0] for own in headers]
    assert found == again
    for own, code in zip(headers, found, strict=True):
        given_names = dict(own)
        shard = given_names.get(SHARD_HEADER, b"x.9").decode().partition(".")[2]
        names = (shard, given_names.get(RUN_HEADER, b"").decode(), given_names.get(WORKER_HEADER, b"").decode())
        assert runs.names[code] == names


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(*(st.integers(0, 3) for _ in range(4))), max_size=40))
def test_duplicates_tally_counts_distinct_events_of_each_transaction_and_run(
    events: list[tuple[int, int, int, int]],
) -> None:
    fresh = np.zeros(len(events), dtype=DELIVERY)
    transactions = np.array([transaction for transaction, _, _, _ in events], dtype=np.uint64)
    wanted: dict[tuple[int, int], list[tuple[int, int, int]]] = defaultdict(list)
    for at, (transaction, run, key, place) in enumerate(events):
        fresh[at] = (key, place, 100 + at, 7000 - at, 0, run, 0)
        if transaction:
            wanted[transaction, run].append((at, key, place))
    found = {
        (int(row["transaction"]), int(row["run"])): (int(row["count"]), int(row["offset"]), int(row["time"]))
        for row in count_transactions(fresh, transactions, np.zeros(len(fresh), dtype=np.bool_), ())
    }
    assert found == {
        name: (len({(key, place) for _, key, place in of}), 100 + of[0][0], 7000 - of[0][0])
        for name, of in wanted.items()
    }
