"""Every job there is: the table of the current ones, their order, the results they may share, and how long they are kept."""
