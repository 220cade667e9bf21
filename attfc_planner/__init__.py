"""Plans an AttFC run: measures or looks up the GPU, predicts memory and speed of the real train step, searches, launches."""
