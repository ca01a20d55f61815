"""The JSON Schemas (2020-12) of the files that other programs read, made from their types; config/ has them. Pure."""

from typing import Any

import msgspec

from demixd.protocol.status import SCHEMA, DaemonStatus, End, InboxStatus, Manifest, Sidecar


def schemas() -> dict[str, dict[str, Any]]:
    """Each schema by its path below config/."""
    return {
        "status.schema.json": _schema(Sidecar, "status", "the status of a song, status/NAME.json"),
        "schemas/daemon.schema.json": _schema(DaemonStatus, "daemon", "the daemon and its queue, status/_daemon.json"),
        "schemas/inbox.schema.json": _schema(InboxStatus, "inbox", "what is no job, status/_inbox.json"),
        "schemas/ends.schema.json": _schema(End, "ends", "a song that has ended, a line of status/_ends.jsonl"),
        "schemas/stems.schema.json": _schema(Manifest, "stems", "the manifest of a result, stems.json"),
    }


def _schema(kind: type[msgspec.Struct], name: str, title: str) -> dict[str, Any]:
    (top,), definitions = msgspec.json.schema_components((kind,), ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:demixd:{name}:{SCHEMA}",
        "title": f"demixd: {title}, protocol version {SCHEMA}",
        **top,
        "$defs": definitions,
    }
