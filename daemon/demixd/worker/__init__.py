"""The worker: a child process that holds the warm model. `messages` is its language, `handle` the supervisor's end of
it, `keeper` keeps one alive, and `python -m demixd.worker` is the child itself, which can be driven by hand."""
