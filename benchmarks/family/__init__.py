"""What the methods of the family are worth, each beside what it would replace, on real faces and on the glyphs."""
