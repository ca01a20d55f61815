"""The command line. All commands but `run`, `bench` and `models` work by files alone.

app            the commands as they are typed; config_option is --config, console what commands print and how they end
submit cancel  what these commands do, by client: the files that any program could write
names          which songs a word means: a name, a pattern, the beginning of one
follow         dropped songs to their ends, for submit --wait and the tour
status/        what status/ holds, and how it is shown
check/         whether everything is ready for the daemon
bench/         how fast this machine separates, measured on a throwaway daemon
tour           daemon/try: the throwaway daemon shown to a newcomer
unit           what systemd/install asks for
text           numbers and durations as text
"""
