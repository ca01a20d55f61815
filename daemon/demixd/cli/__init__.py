"""The command line. All commands but `run`, `separate`, `bench` and `models` work by files alone.

app, models, queue   the commands as they are typed; config_option is --config, console what commands print and how they end
songs/         dropping songs, following, stopping and retrying them, by client: the files that any program could write
status/        what status/ holds, and how it is shown
check/         whether everything is ready for the daemon
bench/         how fast this machine separates, measured on a throwaway daemon
tour           daemon/try: the throwaway daemon shown to a newcomer
unit           what systemd/install asks for; man makes the pages that it installs
text           numbers and durations as text
"""
