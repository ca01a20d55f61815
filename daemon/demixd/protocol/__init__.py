"""The file protocol as types and names: jobs, their options, the status that other programs read. Pure: no file is opened.

job           a job, its states, and the values that travel with it
status        sidecar, heartbeat, the list of ends, the inbox's listing and the manifest
schemas       the JSON Schemas, made from them
options       the options of a song, and those that it gets from profile and defaults
typed         tables that people write, as types, and sentences for their mistakes
inbox_names   what a name in the inbox is: a song, a cancel file, options, ignored
result_names  names of results and their files
track         the facts of a decoded song, and their bounds
peaks         the waveforms of a result
terminal      text that is safe on a terminal, in a log and for systemd
pages         pages that are files: a player beside a result, the status
identity      stat(2) of a file, to know it again
"""
