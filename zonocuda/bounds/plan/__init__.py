"""Which way a sweep goes within its memory, and what it will cost."""
