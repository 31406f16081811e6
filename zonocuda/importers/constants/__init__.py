"""Constants that are folded: enclosures, rules, sizes."""
