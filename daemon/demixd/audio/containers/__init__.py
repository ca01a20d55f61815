"""What a file is, told from its bytes: the containers, and where their sound begins and ends."""
