"""What the commands do that work by files alone, for any user who can read and write the spool. `cli` spells them."""
