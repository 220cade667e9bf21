"""Classification heads compared: for the same images, the same processor time and the same bytes an identity."""
