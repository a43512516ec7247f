"""One grant's life, a module for each part of it; `life.decide_grant` is where it begins."""
