"""The numbered points of a job (demixd.supervisor.trace), in order."""

POINTS = (
    "1-accepted",
    "2-snapshot",
    "3-started",
    "4-separate",
    "5-publishing",
    "6-rename",
    "7-final",
    "8-sidecar",
    "9-original",
    "10-finished",
)
