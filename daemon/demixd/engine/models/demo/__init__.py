"""The embedded demo model: a small HTDemucs trained on synthetic songs, with the programs that made it. Read CARD.md first."""
