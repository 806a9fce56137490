"""Faces and bodies in pictures: the analyser protocol, what it finds, and how it is drawn. A leaf: any package may import it."""
