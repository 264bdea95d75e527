"""Everything goes wrong at once, by seeded dice, while people edit their workspaces; the end is as they wished."""
