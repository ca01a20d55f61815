"""`demixd check`: whether the configuration, the folders and the machine are ready for the daemon.

findings   every check in order, and those of the configuration, the model and the daemon
folders    the checks of the folders and their filesystems
machine    the checks of inotify, the GPU and systemd-python
cluster    the checks of a cluster ([ray])
finding    the result of a check
"""
