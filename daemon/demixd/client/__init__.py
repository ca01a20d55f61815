"""What any program can do that knows nothing but the files: read how things are, say it in words, ask for something.

actions    a drop, a cancel
retry      a song that has failed comes back
reader     the sidecars and the heartbeat, each read again only when its file has changed
liveness   whether the daemon is running, told by its heartbeat and our own clock
overview   what is worth showing, in order
words      an overview as plain lines
names      which songs a word means
text       numbers, durations and sizes as text
"""
