"""`demixd check`: whether the configuration, the folders and the machine are ready for the daemon."""
