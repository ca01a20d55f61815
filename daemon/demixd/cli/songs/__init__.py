"""The commands about songs; all but `separate` work by files alone.

submit   drops songs
follow   shows dropped songs to their ends: `submit --wait`
cancel   stops jobs
ends     prints each end as it comes: `demixd follow`
retry    brings songs back that have failed, or were cancelled
pause    holds all songs up, and lets them go on: `demixd resume`
separate one song in this process, without a daemon
"""
