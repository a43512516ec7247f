"""The API server: how to reach it (`login`), how to speak to it (`api`), and what the operator asks of it."""
