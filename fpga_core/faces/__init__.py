"""Faces and bodies in pictures: how they are found, described and drawn. Any other package can import this one."""
