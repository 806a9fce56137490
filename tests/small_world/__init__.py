"""A small world of simple portraits, and a family of models small enough to ship: the project's laboratory."""
