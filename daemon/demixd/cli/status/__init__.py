"""`demixd status`: the files in status/ as another program reads them, and as a terminal or a pipe shows them.

reader     the sidecars and the heartbeat, each read again only when its file has changed
liveness   whether the daemon is running, told by its heartbeat and our own clock
notice     what is said where no daemon runs
overview   what is worth showing, in order
view       an overview on a terminal; also the progress bars of `submit --wait`
words      an overview as plain lines
watch      once or again and again
"""
