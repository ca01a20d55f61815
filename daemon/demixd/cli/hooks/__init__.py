"""`demixd hooks`: programs of the administrator's are run for each end, by a companion that knows nothing but the files.

    hooks.d/  --trusted-->  a thread for each executable  --the list of ends, from its place on-->  a run for each end

service      the companion's life: which executables there are, and a thread for each
executables  whom an executable may belong to
execution    one run for one end: what it is given, its time, its output
places       how far each executable is in the list, on disk
"""
