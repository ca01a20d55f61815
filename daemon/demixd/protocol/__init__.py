"""What is said in files, as types and names. Pure: nothing here opens a file."""
