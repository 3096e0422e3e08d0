"""Opening pictures, recordings and videos, and making them fit."""
