"""What the user asks for: the recipe, its sections, and the registry of components."""
