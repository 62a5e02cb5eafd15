"""PeriFlow's `dataloading`: what was imported from there is found here."""
