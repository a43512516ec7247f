"""End to end: everything here runs against a real API server, never a fake."""
