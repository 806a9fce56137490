"""The small world: painted people, the recipes of its models, their weights, and the tables measured on them."""
