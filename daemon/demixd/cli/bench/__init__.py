"""`demixd bench`: how fast this machine separates. tests/benchmarks compares demixd with Demucs by the same measure.

measure    from the options of the command to its report
daemon     a daemon on a throw-away spool, whose runs are timed
report     the report: its JSON, and as lines
"""
