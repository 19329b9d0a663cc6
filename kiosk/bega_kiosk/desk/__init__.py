"""The desk: where the reports of a city's kiosks arrive, and what is said of them."""
