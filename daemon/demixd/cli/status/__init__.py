"""`demixd status`: what `client` finds in status/, as a terminal or a pipe shows it.

notice     what is said where no daemon runs
view       an overview on a terminal; also the progress bars of `submit --wait`
watch      once or again and again
"""
