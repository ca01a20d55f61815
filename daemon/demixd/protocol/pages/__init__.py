"""Pages that need no server: bytes of HTML, made from the protocol's types, and the player that they and `web` share.

markup    text, scripts and styles in a page: escaped, packed, and named in its Content-Security-Policy
player    the page of a result; player.js and player.css are the player itself
status    the page of the daemon
"""
