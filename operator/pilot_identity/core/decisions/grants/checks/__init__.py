"""What is checked of a grant before anything is issued for it; `table` has the order."""
