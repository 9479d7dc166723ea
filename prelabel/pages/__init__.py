"""Pages to look at in a browser: one file each, with all they need, no network and no script."""
