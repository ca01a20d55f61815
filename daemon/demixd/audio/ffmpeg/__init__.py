"""FFmpeg's libraries, through av, which is imported here alone: reader, writer, meter, and files of several streams."""
