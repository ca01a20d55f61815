"""The share on disk: where everything lies, and reading, writing and renaming there without links or loss."""
