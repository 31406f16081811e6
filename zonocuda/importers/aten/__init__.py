"""Networks from modules of torch."""
