"""What the browser loads: one page, no build step, nothing from other hosts."""
