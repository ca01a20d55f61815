"""What lies in the inbox, whether it is ready, and which job it becomes."""
