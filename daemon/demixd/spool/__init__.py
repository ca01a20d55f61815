"""The share on disk: its tree, and reading, writing and renaming in it without following links and without loss.

tree        where each folder and file lies
files       open, write, sync, rename, hash
nofollow    files and folders below one that others may write to, reached without following a link
documents   JSON that others may have written, read within bounds
leases      whether somebody has a file open for writing
mounts      the filesystem of a folder, and whether it is remote
private     folders of the daemon's own, closed to others
room        what a disk has left
processes   whether another program's process lives
child_process   processes of ours, which run this program's own code
"""
