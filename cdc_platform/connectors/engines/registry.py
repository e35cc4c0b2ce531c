"""All engines. A new one is a module of this package, a line here, and a reader in `clients/sources/`."""

from __future__ import annotations

from collections.abc import Mapping

from cdc_platform.connectors.engines import mariadb, mysql, postgres
from cdc_platform.connectors.engines.engine_facts import EngineFacts
from cdc_platform.connectors.wire_format import CHOSEN, COMMON, Fixed
from cdc_platform.model.topology import Engine

ENGINES: Mapping[Engine, EngineFacts] = {facts.engine: facts for facts in (mariadb.FACTS, mysql.FACTS, postgres.FACTS)}

# Every option of the wire format of any engine, each once.
FIXED: tuple[Fixed, ...] = tuple(
    dict.fromkeys((*COMMON, *(fixed for facts in ENGINES.values() for fixed in facts.wire_format)))
)


def wire_format(engine: Engine) -> dict[str, str]:
    """The options that fix the wire format of this engine's connectors."""
    fixed = (*COMMON, *ENGINES[engine].wire_format)
    return {**CHOSEN, **{one.option: one.value for one in fixed}}
