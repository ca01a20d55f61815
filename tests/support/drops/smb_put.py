"""A client of an SMB server that writes what comes by its standard input, at once: `smb_put.py PORT PATH [SIZE]`.

The file has SIZE bytes before its first one is written, as Windows and macOS do it. Killed, it leaves the server as a
client does whose network goes away. The password is samba.py's.
"""

import os
import sys

from smbclient._os import open_file
from smbclient._pool import register_session

port, path, *size = sys.argv[1:]
server = path.split("\\")[2]
register_session(server, username="root", password=os.environ["SMB_PASSWORD"], port=int(port))
with open_file(path, "wb", buffering=0, port=int(port)) as file:
    if size:
        file.truncate(int(size[0]))
    while part := os.read(0, 1 << 16):
        file.write(part)
