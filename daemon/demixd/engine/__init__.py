"""The model, from its files to a warm network on a device."""
