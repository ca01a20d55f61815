"""`demixd web`: a page on which the songs are seen, heard and dropped. A program of its own that knows only the files.

    server      the sockets, and how much of them one may take
    app         which address does what
    guard       what stands before every answer
    access      who may: Host, Origin, the token and its cookie
    token, qr   the token's file, and the link that has it, as text and as a code
    state, view what the page shows, read by one reader for all who look, and as JSON
    events      changes of that, to each of them
    songs       one song: its facts, its files, what can be done with it
    stems       a file of a result, or all of them
    uploads     a song that comes in
    problem     what is wrong with a request, as a status and a sentence
    page/       what the browser loads

The daemon does not know of it, and needs no network for it. Whoever speaks to it is believed no more than whoever writes to
the share.
"""
