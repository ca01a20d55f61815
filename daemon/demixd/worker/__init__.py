"""The worker: a child process that holds the warm model, and the messages that it and the supervisor exchange."""
