"""Sound in files and in memory: formats, codecs, containers, tags, measures. Nothing here knows of jobs."""
