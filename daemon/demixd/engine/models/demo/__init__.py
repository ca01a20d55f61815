"""The embedded demo model: a small HTDemucs trained on synthetic songs, with what made it. Read CARD.md first."""
