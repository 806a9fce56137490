"""Faces and bodies in pictures: what an analyser is, finds and draws. A leaf: any package may import it."""
