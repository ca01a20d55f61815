"""The commands about songs, which work by files alone.

submit   drops songs
follow   shows dropped songs to their ends: `submit --wait`
cancel   stops jobs
retry    brings songs back that have failed, or were cancelled
names    which songs a word of the command line means
"""
